"""A folder from which transformers loads a tokenizer, offline and without code of ours."""

import json
import pathlib
from typing import Any

from tokenizers import normalizers, processors

from input_pipeline.tokenize import convert
from input_pipeline.tokenize.engines import Fast, SentencePiece


def write(tokenizer: Any, folder: pathlib.Path, length: int, *, fixed: bool) -> None:
    """What `Tokenizer.export_hf` does."""
    if tokenizer.clean == "siglip" and isinstance(tokenizer.engine, SentencePiece) and not tokenizer.engine.fairseq:
        return _siglip(tokenizer, folder, length)
    engine, frame = tokenizer.engine, tokenizer.frame
    made = engine.to_library()
    steps = [*convert.cleaning(tokenizer.clean), *([made.normalizer] if made.normalizer else [])]
    if steps:
        made.normalizer = normalizers.Sequence(steps)
    names = {i: made.id_to_token(i) for i in (*frame.prefix, *frame.suffix)}
    around = lambda ids: [names[i] for i in ids]
    made.post_processor = processors.TemplateProcessing(
        single=[*around(frame.prefix), "$A", *around(frame.suffix)], special_tokens=[(name, i) for i, name in names.items()]
    )
    # A padding token that texts also hold (open_clip's 0 is "!") would become special there: the last token of the frame fills up.
    special = {token.content for token in made.get_added_tokens_decoder().values() if token.special}
    pad = made.id_to_token(frame.pad_id)
    pad = around(frame.suffix)[-1] if pad not in special and frame.suffix else pad
    made.enable_truncation(length)
    made.enable_padding(pad_id=made.token_to_id(pad), pad_token=pad, length=length if fixed else None)
    tokens = {"pad_token": pad}
    if frame.prefix:
        tokens |= {"cls_token": names[frame.prefix[0]], "bos_token": names[frame.prefix[0]]}
    if frame.suffix:
        tokens |= {"sep_token": names[frame.suffix[-1]], "eos_token": names[frame.suffix[-1]]}
    unk = json.loads(made.to_str())["model"].get("unk_token")
    tokens |= {"unk_token": unk} if unk else {}
    mask = special & {"[MASK]", "<mask>"}
    tokens |= {"mask_token": mask.pop()} if mask else {}
    made.save(str(folder / "tokenizer.json"))
    literal = isinstance(engine, Fast) and engine.literal
    _facts(folder, tokens, length, tokenizer_class="PreTrainedTokenizerFast", split_special_tokens=literal)


def _siglip(tokenizer: Any, folder: pathlib.Path, length: int) -> None:
    """transformers runs SigLIP's vocabulary through sentencepiece itself, so its model goes along as it is."""
    inner = tokenizer.engine.inner
    ids = {"eos_token": tokenizer.eos_id, "pad_token": tokenizer.pad_id, "unk_token": inner.unk_id()}
    tokens = {key: inner.id_to_piece(i) for key, i in ids.items()}
    (folder / SentencePiece.FILE_NAME).write_bytes(tokenizer.engine.model)
    _facts(folder, tokens, length, tokenizer_class="SiglipTokenizer", do_lower_case=True)


def _facts(folder: pathlib.Path, tokens: dict[str, str], length: int, **facts: Any) -> None:
    # Without the last entry transformers would join some punctuation to the word before it when it decodes.
    facts |= {"model_max_length": length, "padding_side": "right", "truncation_side": "right", "clean_up_tokenization_spaces": False}
    for name, content in (("tokenizer_config.json", tokens | facts), ("special_tokens_map.json", tokens)):
        (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
