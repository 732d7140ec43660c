"""`llamacli doctor` asks the Hub whether it is there."""

from __future__ import annotations

from collections.abc import Callable

from local_hub import local_hub
from support import Result


def test_the_hub_is_asked_whether_it_knows_the_token(invoke: Callable[..., Result]) -> None:
    with local_hub() as hub:
        env = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.url}

        def facts(**more: str) -> tuple[dict[str, str], list[str]]:
            report = invoke("doctor", "--json", env={**env, **more}).json
            found = {fact["name"]: fact["value"] for fact in report["sections"]["hub"]}
            return found, [problem["message"] for problem in report["problems"] if "token" in problem["message"]]

        assert facts() == ({"reachable": "yes", "token": "none"}, [])
        assert facts(HF_TOKEN=hub.token) == ({"reachable": "yes", "token": "valid"}, [])
        assert facts(HF_TOKEN="hf_expired12345")[1] == ["the Hub does not accept your token"]
