//! What all operations of the document share, said once: who may ask, ids, keys of repeats, conditions, problems.

use utoipa::openapi::{
    Content, ContentBuilder, OpenApi, Ref, RefOr, Required, Response, ResponseBuilder,
    path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem},
    schema::{ObjectBuilder, Type},
    security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
};

/// The one way to say who asks.
const BEARER: &str = "token";

/// Finishes what the handlers' annotations began.
pub(crate) fn finished(mut document: OpenApi) -> OpenApi {
    let mut scheme = Http::new(HttpAuthScheme::Bearer);
    scheme.description = Some("A token of the API: `moorline token create` makes one.".to_owned());
    let components = document.components.get_or_insert_default();
    components.add_security_scheme(BEARER, SecurityScheme::Http(scheme));
    document.security = Some(vec![SecurityRequirement::new(BEARER, Vec::<String>::new())]);
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in operations(item) {
            operation.operation_id = Some(id(method, path));
            let shared = shared_parameters(method, path).into_iter().map(RefOr::from);
            operation.parameters.get_or_insert_default().extend(shared);
            operation
                .responses
                .responses
                .insert("401".to_owned(), problem("no token that counts").into());
        }
    }
    document
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    let all = [
        ("get", item.get.as_mut()),
        ("put", item.put.as_mut()),
        ("post", item.post.as_mut()),
        ("patch", item.patch.as_mut()),
        ("delete", item.delete.as_mut()),
    ];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation?)))
}

/// `GET /api/v1/devices/{device}` is `get_devices_device`.
fn id(method: &str, path: &str) -> String {
    let parts = path.trim_start_matches("/api/v1/").split('/');
    let parts = parts.map(|part| part.trim_matches(['{', '}']).replace('.', "_"));
    parts.fold(method.to_owned(), |id, part| id + "_" + &part)
}

fn shared_parameters(method: &str, path: &str) -> Vec<Parameter> {
    let of_version = path.ends_with("/{device}") || path.ends_with("/{tenant}");
    let only_changed = path.ends_with("/webhooks/{name}");
    let tag = || (Some(r#"^"[1-9][0-9]{0,18}"$"#), 22);
    match method {
        "post" if !path.ends_with("/import") => {
            let what = "the same again within 24 hours is a repeat, and gets the first answer";
            vec![header("Idempotency-Key", what, (Some("^[!-~]{1,255}$"), 255))]
        }
        "get" if of_version => {
            vec![header("If-None-Match", "an ETag: 304 if it is still that version", tag())]
        }
        "patch" if only_changed => {
            vec![header("If-Match", "an ETag: 412 if it has another version by now", tag())]
        }
        "put" | "patch" | "delete" if of_version => {
            vec![header("If-Match", "an ETag: 412 if it has another version by now", tag())]
        }
        _ => Vec::new(),
    }
}

fn header(name: &str, what: &str, (pattern, length_max): (Option<&str>, usize)) -> Parameter {
    let text = ObjectBuilder::new().schema_type(Type::String);
    let text = text.pattern(pattern).min_length(Some(1)).max_length(Some(length_max));
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(what))
        .schema(Some(text))
        .build()
}

fn problem(what: &str) -> Response {
    let content: Content =
        ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new().description(what).content("application/problem+json", content).build()
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_operation_has_a_name_of_its_own() {
        let document = serde_json::to_value(crate::openapi()).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        assert_eq!(document["components"]["securitySchemes"]["token"]["scheme"], "bearer");
        let mut ids = Vec::new();
        for item in document["paths"].as_object().unwrap().values() {
            for operation in item.as_object().unwrap().values() {
                ids.push(operation["operationId"].as_str().unwrap().to_owned());
                for (status, response) in operation["responses"].as_object().unwrap() {
                    assert!(response["description"].is_string(), "{status} of {operation}");
                }
            }
        }
        let all = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), all);
    }
}
