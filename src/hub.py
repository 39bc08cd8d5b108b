"""Ask the Hugging Face hub, and know within seconds, not minutes, when it does not answer."""

import threading
from collections.abc import Callable
from typing import TypeVar

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

T = TypeVar("T")
SECONDS = 8  # the hub's own retries take 23 s where the connection is refused, minutes where nothing answers


def ask_hub(question: Callable[[HfApi], T]) -> T:
    """The hub's answer. Raises `HfHubHTTPError` when it says no, `ConnectionError` when it is silent for `SECONDS`."""
    answers, errors = [], []

    def ask() -> None:
        try:
            answers.append(question(HfApi()))
        except Exception as error:  # handed to the caller's thread
            errors.append(error)

    thread = threading.Thread(target=ask, daemon=True)  # in a thread, because resolving a host name has no timeout
    thread.start()
    thread.join(SECONDS)
    if answers:
        return answers[0]
    if errors and isinstance(errors[0], HfHubHTTPError):
        raise errors[0]
    raise ConnectionError(str(errors[0]) if errors else f"{SECONDS} s of silence")
