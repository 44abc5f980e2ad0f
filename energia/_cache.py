"""Compiled programs kept on disk, for those who ask for it."""

import os
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

SHORTEST = 0.1  # seconds of compiling from which a program is worth a file


def cache_compilations(folder: str | os.PathLike[str] | None = None) -> Path:
    """Keep compiled programs on disk, so that the next process need not compile them again.

    It turns on JAX's persistent compilation cache for this process: one line at the top of a
    script. Importing energia changes no configuration by itself. Programs are kept by their code,
    shapes, device and the version of JAX; nothing is ever read that another code would have made.

    Args:
        folder: where to keep them, made if need be; None: `energia` in the user's cache folder
            (`$XDG_CACHE_HOME`, else `~/.cache`).

    Returns:
        The folder.

    Raises:
        OSError: when the folder cannot be made or written to.

    Example:
        >>> import energia as en, tempfile
        >>> folder = en.cache_compilations(tempfile.mkdtemp())
    """
    if folder is None:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "energia"
    path = Path(folder).expanduser().resolve()
    path.mkdir(parents=True, exist_ok=True)
    if not os.access(path, os.W_OK):
        raise PermissionError(f"cannot write to {path}: give cache_compilations() another folder")
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", SHORTEST)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    compilation_cache.reset_cache()  # what JAX compiled before now settled on no folder
    return path
