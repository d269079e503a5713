"""What stands between the node and the cloud: lets pass what the node's role allows, refuses the rest, keeps both.

IAM of fakecloud checks requests to a few services only, none of which the agent calls. Its policy simulator judges any
action, though, conditions included: so the gate asks that, of every request, before it hands it on.
It also serves the page of the ECS agent, which runs beside the real one on 127.0.0.1:51678.
"""

import datetime
import gzip
import http.client
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cbor2

# How today's SDKs, but for Python's, call CloudWatch.
CBOR = re.compile(r"/service/GraniteServiceVersion20100801/operation/(\w+)")
# Headers that are each connection's own.
SKIPPED = {"content-length", "transfer-encoding", "connection"}


class Gate:
    """Runs on a free port of 127.0.0.1. `url` is where; `calls` is what came, in order."""

    def __init__(self, cloud, iam, role, place, account):
        self.cloud = cloud
        self.iam = iam
        self.role = role
        self.place = place
        self.account = account
        self.calls = []
        self._known = {}
        self._lock = threading.Lock()
        handler = type("Handler", (Handler,), {"gate": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = "http://%s:%d" % self._server.server_address
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def judge(self, action, resources, context):
        """Whether the role may; asks once for each kind of question."""
        question = (action, tuple(resources), tuple(sorted(context.items())))
        with self._lock:
            if question not in self._known:
                answer = self.iam.simulate_principal_policy(
                    PolicySourceArn=self.role, ActionNames=[action], ResourceArns=list(resources),
                    ContextEntries=[
                        {"ContextKeyName": key, "ContextKeyValues": [value], "ContextKeyType": "string"}
                        for key, value in context.items()
                    ])
                decisions = [one["EvalDecision"] for one in answer["EvaluationResults"]]
                self._known[question] = bool(decisions) and all(one == "allowed" for one in decisions)
            return self._known[question]

    def demand(self, path, target, body):
        """The action that a request is, what it acts on, and what conditions may ask for; as AWS's service
        authorization reference has them."""
        cbor = CBOR.fullmatch(path)
        said = cbor2.loads(body) if cbor else json.loads(body)
        service, _, action = target.partition(".")
        if cbor or service.startswith("GraniteService"):
            action = "cloudwatch:" + (cbor[1] if cbor else action)
            return action, ["*"], {"cloudwatch:namespace": said.get("Namespace", "")}
        if service.startswith("AmazonEC2ContainerService"):
            name = said.get("cluster", "default").rpartition("/")[2]
            cluster = self.arn("ecs", "cluster/" + name)
            # Container instances may be named by their ARNs' last part alone.
            on = [one["targetId"] for one in said.get("attributes", [])] or said.get("containerInstances", [])
            on = [one if one.startswith("arn:") else self.arn("ecs", f"container-instance/{name}/{one}") for one in on]
            on = on or [said.get("service", cluster)]
            return "ecs:" + action, on, {"ecs:cluster": cluster}
        assert service == "AmazonSSM", (path, target)
        names = said.get("Names") or [said.get("Name") or said.get("Path")]
        return "ssm:" + action, [self.arn("ssm", "parameter" + name) for name in names], {}

    def arn(self, service, resource):
        return f"arn:aws:{service}:{self.account['region']}:{self.account['id']}:{resource}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        pages = {"/v1/metadata": self.gate.place, "/v1/tasks": {"Tasks": []}}
        page = pages.get(self.path)
        self.answer(200 if page else 404, {"Content-Type": "application/json"}, json.dumps(page or {}).encode())

    def do_POST(self):
        at = datetime.datetime.now(datetime.timezone.utc).isoformat()
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        zipped = self.headers.get("Content-Encoding") == "gzip"
        action, on, context = self.gate.demand(
            self.path, self.headers.get("X-Amz-Target", ""), gzip.decompress(sent) if zipped else sent)
        allowed = self.gate.judge(action, on, context)
        self.gate.calls.append({"at": at, "action": action, "on": on, "allowed": allowed})
        if allowed:
            self.answer(*self.handed_on(sent))
        else:
            why = f"User: {self.gate.role} is not authorized to perform: {action}"
            said = {"__type": "AccessDeniedException", "message": why}
            self.answer(400, {"Content-Type": "application/x-amz-json-1.1"}, json.dumps(said).encode())

    def handed_on(self, body):
        """The cloud's answer. All headers go as they came: the signature is over them."""
        cloud = http.client.HTTPConnection(self.gate.cloud.rpartition("/")[2], timeout=20)
        cloud.request("POST", self.path, body, dict(self.headers.items()))
        answer = cloud.getresponse()
        kept = {name: value for name, value in answer.getheaders() if name.lower() not in SKIPPED}
        return answer.status, kept, answer.read()

    def answer(self, status, headers, body):
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass
