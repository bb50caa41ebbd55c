"""Query parameters that Litestar lets through: those that are sent more than once, and ``null``."""

from typing import Any, get_args

from litestar import Request
from litestar.enums import ParamType
from litestar.params import ParameterKwarg

from peft_studio.errors import InvalidConfig


def check_query(request: Request[Any, Any, Any]) -> None:
    """
    Refuse a parameter of the route that is there twice, or that is ``null`` where that is no word.

    Litestar would take the last of several without a word, and ``?status=null`` as if there were no ``status``.
    """
    if not request.query_params:
        return
    for name, field in request.route_handler.parsed_fn_signature.parameters.items():
        declared = field.kwarg_definition
        if not isinstance(declared, ParameterKwarg) or declared.param_type is not ParamType.QUERY:
            continue
        sent = request.query_params.getall(declared.name or name, [])
        if len(sent) > 1:
            raise _invalid(declared.name or name, "Must be sent once")
        if sent and sent[0].lower() == "null" and str not in (field.annotation, *get_args(field.annotation)):
            raise _invalid(declared.name or name, "Must not be null; leave it out instead")


def _invalid(field: str, issue: str) -> InvalidConfig:
    return InvalidConfig("The request is invalid.", field=field, issue=issue, errors=[{"field": field, "issue": issue}])
