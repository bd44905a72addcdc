"""
The nouns of Sluicegate: frozen values, no behaviour beyond their own validity.

A *content* class is what a version's digest covers. Everything in it is plain JSON.
"""

from registry.entities.feedback import Feedback, Sign
from registry.entities.metering import (
    ApiKey,
    BudgetPeriod,
    LimitRule,
    Limits,
    Price,
    Spending,
    SubjectKind,
    UsageEntry,
)
from registry.entities.parts import (
    Chunker,
    DatasetContent,
    Embedder,
    Feature,
    IndexContent,
    JudgeContent,
    ModelContent,
    PromptContent,
    PromptMessage,
    Role,
    ToolSchema,
    VariableType,
)
from registry.entities.people import (
    Actor,
    Approval,
    AuditClass,
    AuditRecord,
    User,
    UserRole,
)
from registry.entities.policies import (
    Action,
    GatePolicy,
    GateTier,
    GuardrailPolicy,
    GuardrailRule,
    Verdict,
)
from registry.entities.releases import (
    ReleaseContent,
    Retrieval,
    ServedRelease,
    Snapshot,
    Variant,
)
from registry.entities.splits import Arm, Shadow, Split, Sticky
from registry.entities.versions import (
    AliasMove,
    AliasState,
    Kind,
    MoveAction,
    Version,
    check_target,
)

__all__ = [
    "Action",
    "Actor",
    "AliasMove",
    "AliasState",
    "ApiKey",
    "Approval",
    "Arm",
    "AuditClass",
    "AuditRecord",
    "BudgetPeriod",
    "Chunker",
    "DatasetContent",
    "Embedder",
    "Feature",
    "Feedback",
    "GatePolicy",
    "GateTier",
    "GuardrailPolicy",
    "GuardrailRule",
    "IndexContent",
    "JudgeContent",
    "Kind",
    "LimitRule",
    "Limits",
    "ModelContent",
    "MoveAction",
    "Price",
    "PromptContent",
    "PromptMessage",
    "ReleaseContent",
    "Retrieval",
    "Role",
    "ServedRelease",
    "Shadow",
    "Sign",
    "Snapshot",
    "Spending",
    "Split",
    "Sticky",
    "SubjectKind",
    "ToolSchema",
    "UsageEntry",
    "User",
    "UserRole",
    "VariableType",
    "Variant",
    "Verdict",
    "Version",
    "check_target",
]
