"""What a form sent: read up to a bound, and only with the token of the session. Pure but for the reading."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl

from starlette.requests import Request

from ...errors import Invalid, NotAllowed
from ..callers import Caller
from ..context import Context

FORM_BYTES = 1_000_000
FIELDS = 100


async def read_form(request: Request) -> Mapping[str, str]:
    """Return the fields of a form; of several of a name the last.

    Raises:
        Invalid: it is too large, or no form.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        raise Invalid("this is no form", "use the console's pages")
    raw = b""
    async for part in request.stream():
        raw += part
        if len(raw) > FORM_BYTES:
            raise Invalid(f"the form has more than {FORM_BYTES:,} bytes", "send less")
    try:
        return dict(parse_qsl(raw.decode(), keep_blank_values=True, max_num_fields=FIELDS, errors="strict"))
    except ValueError as error:
        raise Invalid("this is no form", "use the console's pages") from error


def check_form(context: Context, caller: Caller, form: Mapping[str, str]) -> None:
    """Refuse a form that the session's own pages did not make.

    Raises:
        NotAllowed: it has no token, or another session's.
    """
    if not context.sessions.form_allowed(caller.session, form.get("form_token", "")):
        raise NotAllowed("this form is not of your session", "load the page again and repeat it")
