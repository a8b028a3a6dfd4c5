from collections.abc import Callable
from types import FrameType
from typing import Any

SIGTERM: int
SIGINT: int
SIGALRM: int
SIGKILL: int
SIGPIPE: int
SIGXFSZ: int
SIGCHLD: int
SIG_IGN: int
SIG_DFL: int
ITIMER_REAL: int

def signal(number: int, handler: Callable[[int, FrameType | None], Any] | int, /) -> Any: ...
def setitimer(which: int, seconds: float, interval: float = ..., /) -> tuple[float, float]: ...
