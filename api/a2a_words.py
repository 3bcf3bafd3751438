"""The two dialects of A2A that clients speak: 1.0 (protobuf JSON) and 0.3 (`kind` everywhere)."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, cast

Json = dict[str, Any]
State = Literal["submitted", "working", "input-required", "completed", "canceled", "failed"]

# Newer method names, and what they were called before.
METHODS = {
    "message/send": "SendMessage",
    "message/stream": "SendStreamingMessage",
    "tasks/get": "GetTask",
    "tasks/cancel": "CancelTask",
    "tasks/list": "ListTasks",
    "tasks/resubscribe": "SubscribeToTask",
    "tasks/pushNotificationConfig/set": "CreateTaskPushNotificationConfig",
    "tasks/pushNotificationConfig/get": "GetTaskPushNotificationConfig",
    "tasks/pushNotificationConfig/list": "ListTaskPushNotificationConfigs",
    "tasks/pushNotificationConfig/delete": "DeleteTaskPushNotificationConfig",
    "agent/getAuthenticatedExtendedCard": "GetExtendedAgentCard",
}


class Unreadable(ValueError):
    """A part of a message that agents here cannot take."""


@dataclass(frozen=True, slots=True)
class Words:
    """How things are said in one dialect."""

    newer: bool

    def state(self, state: State) -> str:
        return f"TASK_STATE_{state.upper().replace('-', '_')}" if self.newer else state

    def part(self, text: str) -> Json:
        return {"text": text} if self.newer else {"kind": "text", "text": text}

    def message(self, text: str, task_id: str, context_id: str) -> Json:
        told: Json = {
            "messageId": f"{task_id}:answer",
            "role": "ROLE_AGENT" if self.newer else "agent",
            "parts": [self.part(text)],
            "taskId": task_id,
            "contextId": context_id,
        }
        return told if self.newer else {"kind": "message", **told}

    def status(self, state: State, text: str | None, task_id: str, context_id: str) -> Json:
        told: Json = {
            "state": self.state(state),
            "timestamp": datetime.now(UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
        }
        if text:
            told["message"] = self.message(text, task_id, context_id)
        return told

    def artifact(self, text: str, task_id: str) -> Json:
        return {"artifactId": f"{task_id}:result", "name": "answer", "parts": [self.part(text)]}

    def task(self, task_id: str, context_id: str, state: State, text: str | None = None) -> Json:
        said = text if state in ("failed", "input-required") else None
        told: Json = {
            "id": task_id,
            "contextId": context_id,
            "status": self.status(state, said, task_id, context_id),
        }
        if text and state == "completed":
            told["artifacts"] = [self.artifact(text, task_id)]
        return told if self.newer else {"kind": "task", **told}

    def result(self, name: str, content: Json) -> Json:
        """A result, or an item of a stream: the newer dialect wraps it in its name."""
        return {name: content} if self.newer else content

    def status_update(
        self, task_id: str, context_id: str, state: State, text: str | None, *, final: bool
    ) -> Json:
        told: Json = {
            "taskId": task_id,
            "contextId": context_id,
            "status": self.status(state, text, task_id, context_id),
        }
        if not self.newer:
            told = {"kind": "status-update", **told, "final": final}
        return self.result("statusUpdate", told)

    def artifact_update(self, task_id: str, context_id: str, text: str) -> Json:
        told: Json = {
            "taskId": task_id,
            "contextId": context_id,
            "artifact": self.artifact(text, task_id),
            "lastChunk": True,
        }
        if not self.newer:
            told = {"kind": "artifact-update", **told}
        return self.result("artifactUpdate", told)


def text_of(message: Json) -> str:
    """What a message says. Data is passed on as JSON; files are not taken."""
    said: list[str] = []
    parts = message.get("parts")
    for part in cast("list[Any]", parts) if isinstance(parts, list) else []:
        if not isinstance(part, dict):
            raise Unreadable("a part of the message is not an object")
        content = cast("Json", part)
        if isinstance(content.get("text"), str):
            said.append(content["text"])
        elif "data" in content:
            said.append(json.dumps(content["data"], ensure_ascii=False))
        else:
            raise Unreadable("only text and data parts are supported")
    if not said:
        raise Unreadable("the message has no parts")
    return "\n".join(said)
