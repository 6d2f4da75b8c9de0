"""Encodes a file of texts or a folder of images into a folder of vectors; run again, it goes on where it stopped.

    python -m launch.embed --workdir=runs/code --input=texts.jsonl --output=vectors [--view=passage] [--column=body]
    python -m launch.embed --model=downloads/all-MiniLM-L6-v2 --input=lines.txt --output=vectors --format=arrow --dtype=float16

Input: `.jsonl`, `.parquet`, `.txt` (one text a line) or a folder of images. Output: `manifest.json`, and for each shard its vectors and
the names of its rows. A folder of vectors that another model, input or setting made is refused.
"""

from absl import flags

from launch import process

_WORKDIR = flags.DEFINE_string("workdir", None, "folder of a training run")
_STEP = flags.DEFINE_integer("step", None, "with --workdir: which checkpoint; the last by default")
_MODEL = flags.DEFINE_string("model", None, "instead of --workdir: folder or file of another library's model")
_INPUT = flags.DEFINE_string("input", None, "file or folder to encode")
_OUTPUT = flags.DEFINE_string("output", None, "folder of the vectors")
_VIEW = flags.DEFINE_string("view", None, "which view of the model; by default the first that reads such input")
_COLUMN = flags.DEFINE_string("column", "text", "of the texts, in .jsonl and .parquet")
_ID_COLUMN = flags.DEFINE_string("id_column", None, "of names of the rows, in .jsonl and .parquet; by default they are numbered from 0")
_PROMPT = flags.DEFINE_string("prompt", None, "put before each text, in place of the view's own")
_TRUNCATE = flags.DEFINE_integer("truncate_dim", None, "keep so many leading values, for a model trained with Matryoshka losses", 1)
_LAYERS = flags.DEFINE_integer("layers", None, "keep so many first layers of every tower, for a model trained for it", 1)
_PRECISION = flags.DEFINE_enum("compute_dtype", "float32", ["float32", "bfloat16"], "of the operands of matrix products, see README.md")
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "float16"], "of the vectors on disk")
_FORMAT = flags.DEFINE_enum("format", "npy", ["npy", "arrow"], "of a shard")
_BATCH = flags.DEFINE_integer("batch", 64, "images at once", 1)
_TOKENS = flags.DEFINE_integer("tokens", None, "of texts at once, on each device; by default 2048 on CPUs, 16384 elsewhere", 1)
_SHARD_ROWS = flags.DEFINE_integer("shard_rows", 16_384, "rows of the input for each shard; texts are sorted by length within it", 1)


def main(_) -> None:
    process.start()
    with process.exit_codes():
        embed()


def embed() -> None:
    """Everything after the flags."""
    import tqdm

    import retrieval
    from core.config import ConfigError
    from core.storage import on_this_machine
    from core.workdir import locked
    from retrieval import job, shards
    from retrieval.values import open_values

    if (_WORKDIR.value is None) == (_MODEL.value is None):
        raise ConfigError("give either --workdir, the folder of a training run, or --model, another library's.")
    output = on_this_machine(_OUTPUT.value, "--output")
    values = open_values(_INPUT.value, _COLUMN.value, _ID_COLUMN.value)
    options = dict(layers=_LAYERS.value, truncate_dim=_TRUNCATE.value, dtype=_PRECISION.value)
    encoder = retrieval.load(_WORKDIR.value or _MODEL.value, _STEP.value, **options)
    view = encoder.view_for(values.kind == "text") if _VIEW.value is None else _VIEW.value
    if encoder.reads_text(view) != (values.kind == "text"):
        raise ConfigError(
            f"--view={view} does not read {values.kind}s, which {_INPUT.value} holds; this model has {', '.join(encoder.views)}."
        )
    sizes = dict(shard_rows=_SHARD_ROWS.value, batch=_BATCH.value, tokens=_TOKENS.value or encoder.tokens, prompt=_PROMPT.value)
    with locked(output, "written", "--output"):
        made_by = job.settings(encoder, values, view, **sizes)
        writer = shards.Writer(output, made_by, dtype=_DTYPE.value, format=_FORMAT.value)
        if writer.complete:
            process.log.info("%s is done", output)
        else:
            with tqdm.tqdm(total=values.total, unit="row", unit_scale=True, mininterval=0.5) as bar:
                job.embed(encoder, values, writer, view, **sizes, done=bar.update)
    counts = {"rows": 0, "vectors": 0} | writer.manifest["counts"]
    process.log.info("%d vectors of width %d in %s", counts["vectors"], encoder.dim, output)
    if counts["rows"] and not counts["vectors"]:
        fault = next((value.fault for value in values.read() if value.fault), "see the .bad.json files")
        raise ConfigError(f"none of the {counts['rows']} rows of {_INPUT.value} could be read; the first: {fault}. Is --column right?")


if __name__ == "__main__":
    flags.mark_flags_as_required(["input", "output"])
    process.run(main)
