"""A checkpoint folder, looked into without loading a weight: complete, undamaged, safe to load, shaped as it says.

safetensors only. What could run code when loaded (pickles alone, `auto_map`, `trust_remote_code`, Python files) is
refused.
"""

import filecmp
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from app.contracts.errors import ErrorCode, HemostatError
from app.models.arithmetic import check_arithmetic
from app.models.json_file import MALFORMED, read_json
from app.models.packing import Packing, check_one_scheme, packings, scheme_of
from app.models.safetensors_header import TensorInfo, read_header
from app.models.shapes import LAYOUTS, Shape, dimension, each_expected, expected_tensors, is_tied
from app.models.tokenizers import tokenizer_fingerprint

__all__ = ["CheckpointInfo", "TensorInfo", "fingerprint", "inspect", "tokenizer_fingerprint"]

CODE_FIELDS = frozenset({"auto_map", "trust_remote_code", "custom_pipelines"})
PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"})
WHOLE = "model.safetensors"
INDEX = f"{WHOLE}.index.json"
# Factors by which channels were scaled, beside the weights of a checkpoint that was made here: see
# `workers.surgery.channels`.
CHANNELS = "channels.npz"
SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<of>\d{5})\.safetensors")
# What is beside a packed weight in its module.
QUANTIZATION_PARTS = frozenset(
    f"{base}_{part}"
    for base in ("weight", "input", "output", "k", "v", "q")
    for part in ("packed", "scale", "zero_point", "shape", "g_idx", "global_scale", "observer")
)
# Buffers that some checkpoints carry and no model reads.
HARMLESS = re.compile(r".*\.(rotary_emb\.inv_freq|attn\.(masked_)?bias)")
# The packing library names Mixtral's experts as everybody else does.
_MIXTRAL = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}
# The largest known checkpoints have 210,000 tensors, and an index of 20 MB.
MOST_TENSORS = 500_000
MOST_INDEX_BYTES = 64 * 1024**2
_PLAIN_FLOATS = {"BF16": "bf16", "F16": "f16", "F32": "f32", "F64": "f64"}


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint is. `bytes` is the size of its weight files; `scheme` is bf16, f16, f32 for plain weights, or
    what its packing is: w8a8, w4a16, fp8 and so on."""

    path: Path
    config: dict[str, Any]
    architecture: str
    layers: int
    hidden_size: int
    vocabulary: int
    max_position: int | None
    tensors: dict[str, TensorInfo]
    quantization: dict[str, Any] | None
    scheme: str
    bytes: int
    tied: bool

    @property
    def parameters(self) -> int:
        """How many weights the model has, packed ones counted as what they stand for."""
        shapes = expected_tensors(self.architecture, self.config)
        if shapes is None or self.quantization is None:
            return sum(tensor.elements for tensor in self.tensors.values())
        total = 0
        for shape in shapes.values():
            count = 1
            for size in shape:
                count *= size
            total += count
        return total

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the weight files."""
        return tuple(sorted({tensor.file for tensor in self.tensors.values()}))


def inspect(path: Path, *, pointer: str = "", name: str = "") -> CheckpointInfo:
    """Looks into a checkpoint folder; again only when a file in it has changed.

    Raises `HemostatError`, each with `pointer`, and with `name` (the alias; default: the folder's) in its detail:

        CHECKPOINT_NOT_FOUND       no folder.
        CHECKPOINT_UNSAFE          it could run code.
        CHECKPOINT_INCOMPLETE      a file, shard or tensor is missing.
        CHECKPOINT_CORRUPT         a truncated or invalid file.
        CHECKPOINT_SHAPE_MISMATCH  a tensor is not what the configuration says.
        CHECKPOINT_UNSUPPORTED     another format or packing, or arithmetic that no engine here has.
    """
    try:
        if not path.is_dir():
            raise HemostatError(
                ErrorCode.CHECKPOINT_NOT_FOUND,
                f"there is no folder {path}",
                hint="correct its path in models.toml",
                pointer=pointer,
            )
        signature = folder_signature(path)
    except OSError as error:
        raise _unreadable(path, error, pointer) from error
    try:
        return _inspect(path, signature)
    except OSError as error:
        raise _unreadable(path, error, pointer) from error
    except HemostatError as error:
        detail = f"checkpoint {name or _name(path)}: {error.detail}"
        raise HemostatError(error.code, detail, hint=error.hint, pointer=pointer) from error
    except MALFORMED as error:
        raise HemostatError(
            ErrorCode.CHECKPOINT_CORRUPT,
            f"checkpoint {name or _name(path)}: a field of config.json is not of its type: {error}",
            hint="fetch the config.json that belongs to the weights, as save_pretrained writes it",
            pointer=pointer,
        ) from error


def _unreadable(path: Path, error: OSError, pointer: str) -> HemostatError:
    return HemostatError(
        ErrorCode.CHECKPOINT_NOT_FOUND,
        f"{path} cannot be read: {error.strerror}",
        hint="let the service's user read the folder and its files",
        pointer=pointer,
    )


def _name(path: Path) -> str:
    """The folder's name; in the hub's cache, where that is a commit, the repository's."""
    return path.parent.parent.name if path.parent.name == "snapshots" else path.name


def fingerprint(path: Path, *, check_cancelled: Callable[[], None] = lambda: None) -> str:
    """SHA-256, hex, over the names and contents of the configuration and the weight files, and of the record of scaled
    channels where there is one.

    Reads every byte the first time (about a second per GB); a file whose size and time are unchanged is not read again
    by the same process. Raises what `inspect` raises.
    """
    info = inspect(path)
    digest = hashlib.sha256()
    beside = (CHANNELS,) if (path / CHANNELS).is_file() else ()
    for name in ("config.json", *info.files, *beside):
        stat = (path / name).stat()
        content = _digest(path / name, (stat.st_mtime_ns, stat.st_size, stat.st_ino), check_cancelled)
        digest.update(f"{name}\0{content}\n".encode())
    return digest.hexdigest()


_digests: dict[tuple[Path, tuple[int, int, int]], str] = {}


def _digest(file: Path, signature: tuple[int, int, int], check_cancelled: Callable[[], None]) -> str:
    known = _digests.get((file, signature))
    if known is None:
        digest = hashlib.sha256()
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 24):
                check_cancelled()
                digest.update(chunk)
        known = _digests[file, signature] = digest.hexdigest()
        if len(_digests) > 4096:
            del _digests[next(iter(_digests))]
    return known


def same_content(one: CheckpointInfo, other: CheckpointInfo, most_bytes: int) -> bool:
    """Whether configuration and weight files are the same, byte by byte. False if that takes reading more than
    `most_bytes` of either: `fingerprint` decides then."""
    if one.files != other.files:
        return False
    pairs = [(one.path / name, other.path / name) for name in ("config.json", *one.files)]
    copies = [pair for pair in pairs if not pair[0].samefile(pair[1])]
    return sum(file.stat().st_size for file, _ in copies) <= most_bytes and all(
        filecmp.cmp(*pair, shallow=False) for pair in copies
    )


def same_model(reference: str, candidate: str) -> HemostatError:
    """The refusal of two aliases of one model."""
    return HemostatError(
        ErrorCode.INVALID_REQUEST,
        f"{reference} and {candidate} have the same weights and configuration",
        hint="name another model, add a recipe, or set `self_check` to compare the model with itself",
        pointer="/candidate/model",
    )


def folder_signature(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes in bytes and times in nanoseconds of the folder's files: equal where none was written meanwhile."""
    found = []
    for entry in path.iterdir():
        try:
            stat = entry.stat()
        except OSError:  # a link to nothing; anyone who needs the file will say so
            found.append((entry.name, -1, -1))
        else:
            found.append((entry.name, stat.st_size, stat.st_mtime_ns))
    return tuple(sorted(found))


@lru_cache(maxsize=32)
def _inspect(path: Path, _signature: tuple[tuple[str, int, int], ...]) -> CheckpointInfo:
    names = sorted(entry.name for entry in path.iterdir() if entry.is_file() or entry.is_symlink())
    _refuse_code(path, names)
    config = read_json(path / "config.json")
    architecture = _architecture(config)
    check_arithmetic(architecture, config)
    files = _weight_files(path, names)
    tensors, total = _tensors(path, files)
    layers = _depth(config, tensors)
    quantization = config.get("quantization_config") or config.get("compression_config")
    groups = packings(quantization) if quantization else ()
    tied = is_tied(architecture, config, has_head="lm_head.weight" in tensors)
    _check_tensors(architecture, config, tensors, groups, tied)
    if quantization and groups:
        check_one_scheme(quantization, tensors)
    maximum = config.get("max_position_embeddings")
    dtypes = Counter[str]()
    for tensor in tensors.values():
        dtypes[tensor.dtype] += tensor.elements
    plain = dtypes.most_common(1)[0][0]
    if not groups and plain not in _PLAIN_FLOATS:
        raise HemostatError(
            ErrorCode.CHECKPOINT_UNSUPPORTED,
            f"the weights are {plain} and config.json has no quantization_config",
            hint="give a bf16, f16 or f32 checkpoint, or one packed by compressed-tensors",
        )
    return CheckpointInfo(
        path=path,
        config=config,
        architecture=architecture,
        layers=layers,
        hidden_size=dimension(config, "hidden_size"),
        vocabulary=dimension(config, "vocab_size"),
        max_position=dimension(config, "max_position_embeddings") if maximum is not None else None,
        tensors=tensors,
        quantization=quantization or None,
        scheme=scheme_of(groups) if groups else _PLAIN_FLOATS[plain],
        bytes=total,
        tied=tied,
    )


def _refuse_code(path: Path, names: list[str]) -> None:
    """Raises CHECKPOINT_UNSAFE if loading the folder could run code that comes with it."""
    advice = "nothing that a checkpoint brings is ever run; use a checkpoint of a built-in architecture, in safetensors"
    python = [name for name in names if name.endswith(".py")]
    if python:
        raise HemostatError(
            ErrorCode.CHECKPOINT_UNSAFE, f"the folder holds Python code: {', '.join(python)}", hint=advice
        )
    weights = [name for name in names if name.endswith(".safetensors") or name == INDEX]
    pickles = [name for name in names if Path(name).suffix in PICKLES]
    if pickles and not weights:
        raise HemostatError(
            ErrorCode.CHECKPOINT_UNSAFE,
            f"its weights are pickles ({', '.join(pickles[:3])}), which run code when loaded",
            hint="if you trust it, convert it to safetensors: model.save_pretrained(folder)",
        )
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        if name in names:
            field = next(_code_fields(read_json(path / name)), None)
            if field is not None:
                raise HemostatError(
                    ErrorCode.CHECKPOINT_UNSAFE,
                    f"{name} has the field {field!r}, which would run code of the checkpoint",
                    hint=advice,
                )


def _code_fields(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in CODE_FIELDS and inner:
                yield key
            yield from _code_fields(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _code_fields(inner)


def _architecture(config: dict[str, Any]) -> str:
    names = config.get("architectures")
    if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
        raise HemostatError(
            ErrorCode.CHECKPOINT_UNSUPPORTED,
            f"config.json names the architectures {names!r}, expected exactly one",
            hint="give a text model's checkpoint, as save_pretrained writes it",
        )
    if not isinstance(config.get("model_type"), str):
        raise HemostatError(
            ErrorCode.CHECKPOINT_UNSUPPORTED,
            f"config.json of {names[0]} has no model_type, so no engine loads it",
            hint="fetch the config.json that belongs to the weights, as save_pretrained writes it",
        )
    if "hidden_size" not in config or "vocab_size" not in config:
        raise HemostatError(
            ErrorCode.CHECKPOINT_UNSUPPORTED,
            f"config.json of {names[0]} has no hidden_size and vocab_size",
            hint="only decoder-only text models are supported; save only the text model of a multimodal one",
        )
    return names[0]


def _weight_files(path: Path, names: list[str]) -> dict[str, list[str] | None]:
    """Weight file → tensors that the index places in it (None without an index)."""
    if INDEX in names:
        weight_map = read_json(path / INDEX, most_bytes=MOST_INDEX_BYTES).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
            raise HemostatError(ErrorCode.CHECKPOINT_CORRUPT, f"{INDEX} has no weight_map", hint="fetch the file again")
        placed: dict[str, list[str] | None] = {}
        for tensor, file in weight_map.items():
            if Path(file).name != file or not file.endswith(".safetensors"):
                raise HemostatError(
                    ErrorCode.CHECKPOINT_UNSAFE,
                    f"{INDEX} places a tensor in {file!r}, which is no safetensors file of the folder",
                    hint="fetch the checkpoint again from a source that you trust",
                )
            place = placed.setdefault(file, [])
            assert place is not None  # noqa: S101 - lists alone are put in
            place.append(tensor)
        if WHOLE in names and WHOLE not in placed:  # engines go by the index, transformers by the single file
            raise HemostatError(
                ErrorCode.CHECKPOINT_CORRUPT,
                f"the folder holds {WHOLE} and, by {INDEX}, other weights in {len(placed)} files",
                hint="leave the weights of one model alone in the folder",
            )
    else:
        found = [name for name in names if name.endswith(".safetensors") and not name.startswith("consolidated")]
        shards = {(shard["stem"], int(shard["of"])) for name in found if (shard := SHARD.fullmatch(name))}
        for stem, of in shards:  # parts that the names announce; of a number that cannot be there, one too many
            there = range(1, min(of, len(names) + 1) + 1)
            found += [f"{stem}-{number:05}-of-{of:05}.safetensors" for number in there]
        placed = dict.fromkeys(sorted(set(found)))
    if not placed:
        gguf = next((name for name in names if name.endswith(".gguf")), None)
        raise HemostatError(
            ErrorCode.CHECKPOINT_UNSUPPORTED if gguf else ErrorCode.CHECKPOINT_INCOMPLETE,
            f"the folder holds {gguf} and no safetensors file" if gguf else "the folder has no safetensors file",
            hint=f"turn it into a checkpoint: hemostat models import-gguf {gguf}" if gguf else "fetch the weights",
        )
    missing = [file for file in placed if not (path / file).is_file()]
    if missing:
        raise HemostatError(
            ErrorCode.CHECKPOINT_INCOMPLETE,
            f"{len(missing)} of {len(placed)} weight files are missing: {', '.join(missing[:3])}",
            hint="fetch or copy the missing files",
        )
    return placed


def _tensors(path: Path, files: dict[str, list[str] | None]) -> tuple[dict[str, TensorInfo], int]:
    tensors: dict[str, TensorInfo] = {}
    total = 0
    for file, placed in files.items():
        found = read_header(path / file)
        lost = sorted(set(placed or ()) - found.keys())
        if lost:
            raise HemostatError(
                ErrorCode.CHECKPOINT_INCOMPLETE,
                f"{file} lacks {len(lost)} tensors that {INDEX} places in it, such as {lost[0]}",
                hint="index and shards are of different versions; fetch the checkpoint again",
            )
        twice = found.keys() & tensors.keys()
        if twice:
            name = min(twice)
            raise HemostatError(
                ErrorCode.CHECKPOINT_CORRUPT,
                f"tensor {name} is in {tensors[name].file} and in {file}",
                hint="leave the weights of one model alone in the folder",
            )
        tensors |= found
        if len(tensors) > MOST_TENSORS:
            raise HemostatError(
                ErrorCode.CHECKPOINT_UNSUPPORTED,
                f"its weight files hold more than {MOST_TENSORS:,} tensors",
                hint="leave the weights of one model alone in the folder",
            )
        total += (path / file).stat().st_size
    if not tensors:
        raise HemostatError(
            ErrorCode.CHECKPOINT_INCOMPLETE, "the weight files hold no tensor", hint="fetch the weights again"
        )
    return tensors, total


def _depth(config: dict[str, Any], tensors: dict[str, TensorInfo]) -> int:
    """The number of layers. CHECKPOINT_SHAPE_MISMATCH if there are more than tensors, of which each layer has one."""
    layers = dimension(config, "num_hidden_layers")
    if layers > len(tensors):
        raise HemostatError(
            ErrorCode.CHECKPOINT_SHAPE_MISMATCH,
            f"config.json says {layers:,} layers, and the weight files hold {len(tensors):,} tensors",
            hint="config.json and weights do not belong together; fetch both from the same revision",
        )
    return layers


def _check_tensors(
    architecture: str,
    config: dict[str, Any],
    tensors: dict[str, TensorInfo],
    groups: tuple[Packing, ...],
    tied: bool,
) -> None:
    """Raises where a tensor that the configuration calls for is missing, has another shape, or is one too many."""
    if architecture not in LAYOUTS:
        return
    expected: dict[str, Shape] = {}
    found = {_usual_name(architecture, name): (name, tensor) for name, tensor in tensors.items()}
    for name, shape in each_expected(architecture, config):
        expected[name] = shape
        module = name.removesuffix(".weight")
        packed = found.get(f"{module}.weight_packed") if groups else None
        plain = found.get(name)
        if groups and (packed or (plain and plain[1].dtype not in _PLAIN_FLOATS)):
            _check_scale(module, found)
        if packed is not None:
            _check_packed(module, packed[1], shape, groups)
        elif plain is None:
            raise HemostatError(
                ErrorCode.CHECKPOINT_INCOMPLETE,
                f"tensor {name} is missing, but {architecture} with this config.json has it",
                hint="fetch the weights again, or the config.json that belongs to them",
            )
        elif plain[1].shape != shape:
            raise _shape_mismatch(plain[0], plain[1].shape, shape)
    if tied and "lm_head.weight" in found:
        embedding = expected["model.embed_tokens.weight"]
        if found["lm_head.weight"][1].shape != embedding:
            raise _shape_mismatch("lm_head.weight", found["lm_head.weight"][1].shape, embedding)
    modules = {name.rpartition(".")[0] for name in expected} | {"lm_head"}
    for name, (original, _) in found.items():
        module, _, part = name.rpartition(".")
        known = name in expected or (tied and name == "lm_head.weight") or HARMLESS.fullmatch(name)
        beside = groups and part in QUANTIZATION_PARTS and (module in modules or module.endswith("self_attn"))
        if not known and not beside:
            raise HemostatError(
                ErrorCode.CHECKPOINT_SHAPE_MISMATCH,
                f"tensor {original} is there, but {architecture} with this config.json has none of that name "
                f"({dimension(config, 'num_hidden_layers')} layers)",
                hint=(
                    "fetch config.json and weights from the same revision: an engine would ignore this tensor silently"
                ),
            )


def _check_scale(module: str, found: dict[str, tuple[str, TensorInfo]]) -> None:
    if f"{module}.weight_scale" not in found:
        raise HemostatError(
            ErrorCode.CHECKPOINT_INCOMPLETE,
            f"tensor {module}.weight_scale is missing, so the packed weight cannot be unpacked",
            hint="fetch the weights again",
        )


def _check_packed(module: str, packed: TensorInfo, shape: Shape, groups: tuple[Packing, ...]) -> None:
    if packed.dtype == "I32" and all(group.packed_shape(shape) != packed.shape for group in groups):
        raise _shape_mismatch(f"{module}.weight_packed", packed.shape, groups[0].packed_shape(shape))


def _usual_name(architecture: str, name: str) -> str:
    if architecture != "MixtralForCausalLM":
        return name
    parts = name.split(".")
    if len(parts) > 2 and "experts" in parts:
        parts[-2] = _MIXTRAL.get(parts[-2], parts[-2])
    return ".".join(parts)


def _shape_mismatch(name: str, found: Shape, expected: Shape) -> HemostatError:
    return HemostatError(
        ErrorCode.CHECKPOINT_SHAPE_MISMATCH,
        f"tensor {name} has the shape {list(found)}, config.json says {list(expected)}",
        hint="config.json and weights do not belong together; fetch both from the same revision",
    )
