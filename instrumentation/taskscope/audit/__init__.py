"""Who did what: chosen events in a chain of lines that nobody without its key can change, cut or add to unseen."""

from taskscope.audit.heads import Head, read_heads
from taskscope.audit.links import AUDIT_KEY_FILE, AuditKey, load_audit_key, read_audit_key
from taskscope.audit.trail import Audit
from taskscope.audit.verify import Audited, Break, BreakKind, Report, verify

__all__ = [
    "AUDIT_KEY_FILE",
    "Audit",
    "AuditKey",
    "Audited",
    "Break",
    "BreakKind",
    "Head",
    "Report",
    "load_audit_key",
    "read_audit_key",
    "read_heads",
    "verify",
]
