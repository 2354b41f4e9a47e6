"""The operator's mistakes: each is one line that names the file, the key or offset, and what was expected.

    OperatorError
    ├── ManifestError   a boot manifest (`images/*.toml`)
    ├── ImageError      an ELF program or another boot module
    └── ProfileError    a cost profile (`images/profiles/*.toml`)

A guest's mistakes are ABI error codes and never exceptions; ours are `kernel.errors.KernelBug`.
"""


class OperatorError(Exception):
    """`str(error)` is the line to print; the command line exits with 2."""


class ManifestError(OperatorError):
    """The manifest cannot be read or asks for something impossible."""


class ImageError(OperatorError):
    """A file is not a program or module that this machine can boot."""


class ProfileError(OperatorError):
    """A cost profile cannot be read, or lacks or misspells a key."""
