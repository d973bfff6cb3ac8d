"""Loading a checkpoint of ours whole, or not at all.

Belongs here: what both tasks' `from_pretrained` do beyond transformers'.
"""

from collections.abc import Callable
from typing import Any

from common.errors import UserError


def load_whole(from_pretrained: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    """transformers' `from_pretrained`, but missing or unfitting weights are refused (`UserError`), not made up."""
    wanted = keywords.pop("output_loading_info", False)
    try:
        model, info = from_pretrained(*arguments, output_loading_info=True, **keywords)
    except RuntimeError as error:  # a shape that does not fit
        raise UserError(f"checkpoint {arguments[0]}: weights do not fit its config ({error})") from None
    wrong = sorted(map(str, info["missing_keys"])) + sorted(map(str, info["mismatched_keys"]))
    wrong += sorted(map(str, info["unexpected_keys"]))
    if wrong:
        raise UserError(f"checkpoint {arguments[0]}: its weights do not fit its config ({wrong[0]} and others)")
    return (model, info) if wanted else model
