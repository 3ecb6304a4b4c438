"""`typing.override`, which Python has since 3.12; a type checker sees it everywhere."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from typing_extensions import override
else:
    Method = TypeVar("Method", bound=Callable[..., Any])

    def override(method: Method) -> Method:
        """Mark a method that replaces one of a base class, whose docstring holds."""
        return method


__all__ = ["override"]
