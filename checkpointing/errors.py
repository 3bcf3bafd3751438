"""What can go wrong below the runtime.

CheckpointError
├── DatabaseUnreachable    no connection, and why
├── UnfitDatabase          it cannot hold every text: its encoding is not UTF8
├── MigrationError         a migration failed or the releases are out of order
├── IsolationError         the database does not keep owners apart
├── UnknownThread          no such session for this principal
├── ThreadExists           the id is taken, whoever has it
├── UnknownCheckpoint      no such checkpoint on what this session can see
├── FenceLost              the epoch was taken by another writer; nothing was written
├── NothingToUndo          the session's line was not restored from another
├── CyclicLineage          a lineage is its own ancestor, or its parent is missing
├── DeltaInUse             a DeltaChannel still needs what was to be deleted
├── CheckpointInUse        the head, a fork, or another session still needs what was to be deleted
├── LabelTaken             another checkpoint of the session has this label
├── UnknownLabel           no checkpoint of the session has this label
├── InvalidId              a checkpoint or task id that is no UUID
├── UnknownBody            a stored value of a type or a version that this release cannot read
├── Unserializable         a value that cannot be stored
├── EncryptionError        what is encrypted cannot be read, or what must be encrypted is not
│   ├── UnknownKey         it was encrypted under a key that the settings do not name
│   ├── WrongKey           the key of that name is not the one that it was encrypted under
│   ├── KeyDestroyed       its key was destroyed together with its session
│   ├── NotEncrypted       a plain value where everything has to be encrypted
│   └── Tampered           an encrypted value was changed, or moved to another place
├── BundleError            a bundle cannot be imported; nothing of it was
│   ├── BundleTruncated    it ends before its end
│   ├── BundleEdited       its hash chain or its contents do not hold together
│   └── BundleUnsupported  a version, a record or a value that this release does not know
└── StockError             stock checkpoint tables are missing, or did not come out equal
"""


class CheckpointError(Exception):
    """The root of this package's errors."""

    code = "checkpoint_error"


class DatabaseUnreachable(CheckpointError):
    code = "database_unreachable"


class UnfitDatabase(CheckpointError):
    code = "unfit_database"


class MigrationError(CheckpointError):
    code = "migration_failed"


class IsolationError(CheckpointError):
    code = "isolation_failed"


class UnknownThread(CheckpointError):
    code = "unknown_thread"


class ThreadExists(CheckpointError):
    code = "thread_exists"


class UnknownCheckpoint(CheckpointError):
    code = "unknown_checkpoint"


class FenceLost(CheckpointError):
    code = "fence_lost"


class NothingToUndo(CheckpointError):
    code = "nothing_to_undo"


class CyclicLineage(CheckpointError):
    code = "cyclic_lineage"


class DeltaInUse(CheckpointError):
    code = "delta_in_use"


class CheckpointInUse(CheckpointError):
    code = "checkpoint_in_use"


class LabelTaken(CheckpointError):
    code = "label_taken"


class UnknownLabel(CheckpointError):
    code = "unknown_label"


class InvalidId(CheckpointError):
    code = "invalid_id"


class UnknownBody(CheckpointError):
    code = "unknown_body"


class Unserializable(CheckpointError):
    code = "unserializable"


class EncryptionError(CheckpointError):
    code = "encryption_error"


class UnknownKey(EncryptionError):
    code = "unknown_key"


class WrongKey(EncryptionError):
    code = "wrong_key"


class KeyDestroyed(EncryptionError):
    code = "key_destroyed"


class NotEncrypted(EncryptionError):
    code = "not_encrypted"


class Tampered(EncryptionError):
    code = "tampered"


class BundleError(CheckpointError):
    code = "bundle_error"


class BundleTruncated(BundleError):
    code = "bundle_truncated"


class BundleEdited(BundleError):
    code = "bundle_edited"


class BundleUnsupported(BundleError):
    code = "bundle_unsupported"


class StockError(CheckpointError):
    code = "stock_error"
