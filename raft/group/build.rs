//! Makes the gRPC code of `proto/peer.proto`, without `protoc`: protox is a protobuf compiler in Rust.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto/peer.proto");
    let files = protox::compile(["proto/peer.proto"], ["proto"])?;
    tonic_prost_build::configure().bytes(".moorline.peer.v1.Frame.body").compile_fds(files)?;
    Ok(())
}
