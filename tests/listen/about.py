"""What each of these programs says about itself and its client."""

import json
import os


def about(remote):
    """The body of an answer."""
    said = {"pid": os.getpid(), "slot": os.environ.get("NODE_APP_INSTANCE"), "remote": remote}
    return json.dumps(said).encode()
