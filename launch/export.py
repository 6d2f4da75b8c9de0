"""Writes a model as a folder that another library opens offline: weights, config, tokenizer, golden vectors and a model card.

    python -m launch.export --workdir=runs/code --format=sentence_transformers --output=exported [--step=500]
    python -m launch.export --workdir=runs/code --format=hf_bert --output=exported --layers=4
    python -m launch.export --model=downloads/clip --format=open_clip --output=exported

Formats: hf_bert, hf_clip, hf_decoder, hf_modernbert, hf_siglip, open_clip, sentence_transformers. The new folder is read back and its
vectors compared with the model's; beyond 1e-5 nothing is left behind and the code is 3, as for any other mistake.
"""

from absl import flags

from launch import process

_WORKDIR = flags.DEFINE_string("workdir", None, "folder of a training run")
_STEP = flags.DEFINE_integer("step", None, "with --workdir: which checkpoint; the last by default")
_MODEL = flags.DEFINE_string("model", None, "instead of --workdir: folder or file of another library's model")
_FORMAT = flags.DEFINE_string("format", None, "what to write")
_OUTPUT = flags.DEFINE_string("output", None, "folder to write; it may not hold anything yet")
_TOWER = flags.DEFINE_string("tower", None, "only this tower of the model, by its label")
_LAYERS = flags.DEFINE_integer("layers", None, "keep so many first layers of every tower, for models trained for it", 1)
_TRUNCATE = flags.DEFINE_integer("truncate_dim", None, "leading values of a vector that are kept, for Matryoshka models", 1)


def main(_) -> None:
    process.start()
    with process.exit_codes():
        export()


def export() -> None:
    """Everything after the flags."""
    import retrieval
    from core.config import ConfigError, plain
    from core.storage import as_path, on_this_machine
    from core.workdir import read_json
    from interop import export as out
    from interop.card import card

    if (_WORKDIR.value is None) == (_MODEL.value is None):
        raise ConfigError("give either --workdir, the folder of a training run, or --model, another library's.")
    output = on_this_machine(_OUTPUT.value, "--output")
    encoder = retrieval.load(_WORKDIR.value or _MODEL.value, _STEP.value, layers=_LAYERS.value)
    source, run, results = encoder.imported(), None, []
    if _TOWER.value is not None:
        source = out.part(source, _TOWER.value)
    if _WORKDIR.value is not None:
        run = {"step": encoder.step, "config": plain(encoder.config)}
        results = [read_json(file) for file in sorted((as_path(_WORKDIR.value) / "evals" / str(encoder.step)).glob("*.json"))]
    text = card(output.name, _FORMAT.value, source.model, run, results)
    out.write(source, output, _FORMAT.value, truncate_dim=_TRUNCATE.value, card=text)
    process.log.info("%s: written", output)


if __name__ == "__main__":
    flags.mark_flags_as_required(["format", "output"])
    process.run(main)
