"""A device's program on Fostrom's SDK, driven by lines of JSON. Run by test_fostrom_sdk.py, in a namespace of its own.

In: {"call": method, "args": […]}, one line each. Out: {"result": …} or {"error": …, "message": …} for each, in order, and
{"event": …} whenever the SDK calls back. What becomes of a mail its name says: ack, reject, requeue (once), raise.
"""

import json
import logging
import os
import sys
import threading

from fostrom import Fostrom, FostromError

said = threading.Lock()


def say(line):
    """From any thread."""
    with said:
        print(json.dumps(line), flush=True)


class Complaints(logging.Handler):
    """What the SDK logs: it rejects mail by itself when it thinks that a handler failed."""

    def emit(self, record):
        say({"event": "log", "level": record.levelname, "text": record.getMessage()})


requeued = set()


def on_mail(mail):
    say({"event": "mail", "id": mail.id, "name": mail.name, "payload": mail.payload, "size": mail.mailbox_size})
    if mail.name == "raise":
        raise RuntimeError("the handler fails")
    if mail.name == "requeue" and mail.id not in requeued:
        requeued.add(mail.id)
        mail.requeue()
    elif mail.name == "reject":
        mail.reject()
    elif mail.name != "keep":
        mail.ack()


def call(device, line):
    """One line in, one line out."""
    try:
        if line["call"] == "status":
            return {"result": device._get_status()}
        result = getattr(device, line["call"])(*line.get("args", []))
        return {"result": result.id if hasattr(result, "id") else result}
    except FostromError as error:
        return {"error": error.error, "message": error.message}


def main():
    logging.getLogger("fostrom").addHandler(Complaints())
    device = Fostrom(
        {
            "fleet_id": os.environ["FLEET"],
            "device_id": os.environ["DEVICE"],
            "device_secret": os.environ["SECRET"],
            "stop_agent_on_exit": True,
        }
    )
    device.on_mail = on_mail
    device.on_connected = lambda: say({"event": "connected"})
    device.on_unauthorized = lambda reason, ms: say({"event": "unauthorized", "reason": reason, "ms": ms})
    device.on_reconnecting = lambda reason, ms: say({"event": "reconnecting", "reason": reason, "ms": ms})
    for line in sys.stdin:
        say(call(device, json.loads(line)))
    device.shutdown()


main()
