"""What operator and agent agree on: the documents that one sends, and the answers that the other gives.

Both may be one version apart, in either direction, so what is read is read leniently: unknown fields are ignored, words
that are not known stay as they are, and only another `version` is refused. Needs no cryptography: signing and
verification are in `trimtab_agent.documents`.
"""

from .answers import (
    ADAPTERS_TOLD,
    API,
    BASES_TOLD,
    KEYS_TOLD,
    AdapterAnswer,
    AliasAnswer,
    DocumentAnswer,
    DocumentsAnswer,
    EngineAnswer,
    EngineLimits,
    FailureAnswer,
    GuardAnswer,
    PodAnswer,
    PodIdentity,
    RefusalAnswer,
    RevisionAnswer,
    ShareAnswer,
    Truth,
)
from .lenient import SHARES_KEPT, WEIGHT
from .share import (
    ADAPTER_NAME,
    DOCUMENT_BYTES,
    DOCUMENTS_AT_ONCE,
    DOCUMENTS_BYTES,
    NAME,
    REVISION,
    SHARE_VERSION,
    URI,
    Documents,
    Probe,
    ProbeKind,
    Revision,
    Share,
)

__all__ = [
    "ADAPTERS_TOLD",
    "ADAPTER_NAME",
    "API",
    "BASES_TOLD",
    "DOCUMENTS_AT_ONCE",
    "DOCUMENTS_BYTES",
    "DOCUMENT_BYTES",
    "KEYS_TOLD",
    "NAME",
    "REVISION",
    "SHARES_KEPT",
    "SHARE_VERSION",
    "URI",
    "WEIGHT",
    "AdapterAnswer",
    "AliasAnswer",
    "DocumentAnswer",
    "Documents",
    "DocumentsAnswer",
    "EngineAnswer",
    "EngineLimits",
    "FailureAnswer",
    "GuardAnswer",
    "PodAnswer",
    "PodIdentity",
    "Probe",
    "ProbeKind",
    "RefusalAnswer",
    "Revision",
    "RevisionAnswer",
    "Share",
    "ShareAnswer",
    "Truth",
]
