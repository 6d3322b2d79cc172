"""The other sides of webhooks."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# What Teams takes, of whose text nothing is Markdown.
CARD = "application/vnd.microsoft.card.adaptive"


class Chat:
    """The other sides of two webhooks, Slack's and Teams': they keep what is posted, and Slack answers what the test sets."""

    def __init__(self):
        self.texts = []
        self.cards = []
        self.paths = []
        self.statuses = []
        chat = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                chat.paths.append(self.path)
                self.send_response(chat.take_card(body) if self.path == "/workflows/secret" else chat.take_text(body))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        address = f"http://127.0.0.1:{self.server.server_port}"
        self.slack, self.teams = f"{address}/services/secret", f"{address}/workflows/secret"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take_text(self, body):
        status = self.statuses.pop(0) if self.statuses else 200
        if status == 200:
            assert body == {"text": body["text"], "mrkdwn": False}
            self.texts.append(body["text"])
        return status

    def take_card(self, body):
        """Workflows answer 202 whatever comes; what they would drop is no card here."""
        assert len(json.dumps(body).encode()) < 28 * 1024
        attachment, = body["attachments"]
        card = attachment["content"]
        assert (body["type"], attachment["contentType"], card["type"]) == ("message", CARD, "AdaptiveCard")
        runs = [run for element in card["body"] for run in element["inlines"]]
        assert {element["type"] for element in card["body"]} == {"RichTextBlock"} and {run["type"] for run in runs} == {"TextRun"}
        self.cards.append(runs)
        return 202

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
