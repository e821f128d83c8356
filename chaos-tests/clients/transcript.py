"""What curl says and hears over HTTP, word for word, as transcripts have it."""

import subprocess

ANSWER_S = 60
# What changes from one answer to the next.
NOT_COMPARED = {"date"}


def read(file):
    """What is said and what is heard, in order. A line that begins with `!` is done by somebody else, before what follows."""
    exchanges, said, heard, where = [], [], [], None
    for line in [*file.read_text().splitlines(), ""]:
        if line[:1] in ("<", ">"):
            where = said if line[0] == ">" else heard
            where.append(line[2:])
        elif line[:1] == "!":
            said.append(line)
        elif heard:
            exchanges.append((said, heard))
            said, heard = [], []
    return exchanges


def parts(lines):
    """The first line, headers, and the body."""
    head = lines[: lines.index("")] if "" in lines else lines
    return head[0], head[1:], "\n".join(lines[len(head) + 1 :])


def hear(method, url, headers, body, *more):
    """What curl hears, as lines of a transcript."""
    command = ["curl", "--silent", "--show-error", "--include", "--max-time", str(ANSWER_S), "--request", method]
    command += ["--globoff", url, *more]
    # Without one, curl says that a body is a form.
    command += [argument for header in headers or ["content-type:"] for argument in ("--header", header)]
    command += ["--data-binary", "@-"] if body else []
    ran = subprocess.run(command, input=body.encode(), capture_output=True, timeout=2 * ANSWER_S, check=True)
    head, _, body = ran.stdout.decode().partition("\r\n\r\n")
    status, *headers = head.split("\r\n")
    headers = [header.partition(": ") for header in headers]
    kept = [f"{name.lower()}: {value}" for name, _, value in headers if name.lower() not in NOT_COMPARED]
    return [status.split()[1], *kept, *(["", *body.split("\n")] if body else [])]
