"""Files of rows in requests: what a request says of one, and how the API's documentation describes it."""

from dataclasses import dataclass

from litestar.enums import RequestEncodingType
from litestar.openapi.spec import OpenAPIMediaType, Operation, Parameter, RequestBody, Schema
from litestar.openapi.spec.enums import OpenAPIFormat, OpenAPIType

from api import tus
from infra.uploads import UploadRecord
from peft_studio.errors import InvalidConfig
from peft_studio.stored_datasets import FileType, label

_FILE = Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.BINARY, description="JSON, JSONL, CSV or Parquet.")
_FORM = Schema(
    type=OpenAPIType.OBJECT,
    properties={
        "file": _FILE,
        "name": Schema(type=OpenAPIType.STRING, description="By default the file's own."),
        "sha256": Schema(type=OpenAPIType.STRING, description="Of the file: anything else that arrives is refused."),
    },
    required=["file"],
    additional_properties=False,
)
_PIECE = Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.BINARY, description="The next bytes of the file.")


class FileOperation(Operation):
    """A route that reads a file by itself, as a form or as it is, and so has to say that it does."""

    def __post_init__(self) -> None:
        """Describe the request's body."""
        form = OpenAPIMediaType(schema=_FORM)
        file = OpenAPIMediaType(schema=_FILE)
        content = {RequestEncodingType.MULTI_PART.value: form, "application/octet-stream": file}
        self.request_body = RequestBody(required=True, content=content)


_VERSION = Parameter(
    name="Tus-Resumable",
    param_in="header",
    required=True,
    description="The version of tus that is spoken; another one is refused (412).",
    schema=Schema(type=OpenAPIType.STRING, enum=[tus.VERSION]),
)


@dataclass
class TusOperation(Operation):
    """A route that speaks tus, whose version is looked at ahead of it."""

    def __post_init__(self) -> None:
        """Describe the header that names it."""
        self.parameters = [*(self.parameters or []), _VERSION]


@dataclass
class PieceOperation(TusOperation):
    """A route that reads a piece of a file."""

    def __post_init__(self) -> None:
        """Describe the request's body."""
        super().__post_init__()
        self.request_body = RequestBody(required=True, content={tus.PIECE: OpenAPIMediaType(schema=_PIECE)})


def record_of(
    file_name: str, name: str | None, sha256: str | None, length: int, metadata: str = "", field: str = "name"
) -> UploadRecord:
    """Say what a file is to become; the ending of either name tells its type, else ``field`` is refused."""
    file_type = FileType.of(file_name) or FileType.of(name or "")
    if file_type is None:
        endings = ", ".join(f".{kind}" for kind in FileType)
        raise InvalidConfig(
            f"{field}: the file's name must end in one of {endings}, which says what it is.",
            field=field,
            issue=f"The file's name must end in one of {endings}" if file_name or name else "Required",
        )
    shown = label(name or "") or label(file_name)
    return UploadRecord(name=shown, file_type=file_type, length=length, sha256=sha256, metadata=metadata)
