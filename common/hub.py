"""The Hugging Face Hub: a folder up, a folder down, and one line for whatever goes wrong on the way.

Belongs here: the only two places that talk to the Hub about models. What is in the folders is the tasks' business.
"""

import re
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, get_token, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

from common.errors import UserError, reason

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_NO_TOKEN = "no token for the Hub; log in with `hf auth login`, or set HF_TOKEN to a token that may write"


def upload(folder: str | Path, name: str, **keywords: Any) -> str:
    """Put a folder's files into the repository `name`, made if there is none; → its address.

    `keywords` are `huggingface_hub.create_repo`'s. Raises `UserError` without a token or a network, and for whatever
    the Hub refuses.
    """
    if not (keywords.get("token") or get_token()):
        raise UserError(f"{name}: {_NO_TOKEN}")
    api = HfApi(token=keywords.pop("token", None))
    try:
        address = api.create_repo(name, exist_ok=True, **keywords)
        api.upload_folder(repo_id=name, folder_path=str(folder))
    except LocalTokenNotFoundError:
        raise UserError(f"{name}: {_NO_TOKEN}") from None
    except OfflineModeIsEnabled:
        raise UserError(f"{name}: HF_HUB_OFFLINE is set, so nothing is uploaded; unset it") from None
    except HfHubHTTPError as error:
        raise UserError(f"{name}: the Hub refused ({reason(error)}); may your token write there?") from None
    except Exception as error:  # its client raises many kinds, and so does a damaged connection
        raise UserError(f"{name}: the Hub cannot be reached ({reason(error)}); try again later") from None
    return str(address)


def download(name: str) -> Path:
    """The files of the model `name`, kept in the Hub's cache. Raises `UserError`."""
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model"]))
    except Exception as error:  # the Hub's client raises many kinds
        raise UserError(f"{name}: no such folder, and the Hub gave no such model ({reason(error)})") from None


def local(name: str | Path) -> str | Path:
    """`name` itself if there is such a folder or it is no name on the Hub; else the folder it was downloaded to."""
    return download(str(name)) if not Path(name).exists() and HUB_NAME.fullmatch(str(name)) else name
