"""A tokenizer as a file that transformers reads: what a Python cleaning and a sentencepiece model become there."""

import tokenizers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

UNIGRAM, BPE = 1, 2  # kinds of model, and of piece, as sentencepiece's format numbers them
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4


def cleaning(name: str) -> list[normalizers.Normalizer]:
    """The cleaning of that name as far as the library can say it: encodings and HTML are not mended.

    Raises:
        ValueError: a cleaning that no normaliser says.
    """
    replace = lambda pattern, text: normalizers.Replace(Regex(pattern), text)
    spaces = [replace(r"\s+", " "), normalizers.Strip()]
    quotes = [replace("[ʼ‘-‛]", "'"), replace("[“-‟]", '"')]  # ftfy makes them straight
    straight = [normalizers.Replace(pair, '"') for pair in ("``", "''")]
    table = {
        "albert": [*straight, normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()],
        "canonical": [*quotes, normalizers.NFC(), replace("_", " "), replace("[!-/:-@\\[-`{-~]", ""), normalizers.Lowercase(), *spaces],
        "lower": [normalizers.Lowercase()],
        "none": [],
        "open_clip": [*quotes, normalizers.NFC(), *spaces, normalizers.Lowercase()],
        "open_clip_cased": [*quotes, normalizers.NFC(), *spaces],
    }
    if name not in table:
        raise ValueError(f"texts cleaned as {name!r} cannot be described in a tokenizer.json; those that can: {', '.join(sorted(table))}.")
    return table[name]


def from_sentencepiece(model: bytes, fairseq: bool) -> tokenizers.Tokenizer:
    """A sentencepiece model in the other library, without the frame.

    Ids agree but where a combining mark follows a character that the model's own table rewrites (½ and ﬁ, say): there the
    library drops the mark, as in every conversion of such models; and where a text spells a special token.
    """
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model)
    rules = proto.normalizer_spec
    made, first = (_unigram if proto.trainer_spec.model_type == UNIGRAM else _bpe)(proto, fairseq)
    steps = [normalizers.Precompiled(rules.precompiled_charsmap)] if rules.precompiled_charsmap else []
    if rules.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip()]
    made.normalizer = normalizers.Sequence(steps + first)
    return made


def _unigram(proto, fairseq: bool):
    # sentencepiece prefers the pieces that a user defined to any others of their length.
    best = max(piece.score for piece in proto.pieces if piece.type == NORMAL)
    score = lambda piece: len(piece.piece) * best - 0.1 if piece.type == USER_DEFINED else piece.score
    vocab, unk = [(piece.piece, score(piece)) for piece in proto.pieces], proto.trainer_spec.unk_id
    special = [piece.piece for piece in proto.pieces if piece.type == CONTROL]
    if fairseq:
        special, unk = ["<s>", "<pad>", "</s>", "<mask>"], 3
        vocab = [*((name, 0.0) for name in ("<s>", "<pad>", "</s>", "<unk>")), *vocab[3:], ("<mask>", 0.0)]
    made = tokenizers.Tokenizer(models.Unigram(vocab, unk_id=unk, byte_fallback=proto.trainer_spec.byte_fallback))
    scheme = "always" if proto.normalizer_spec.add_dummy_prefix else "never"
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(prepend_scheme=scheme), decoders.Metaspace(prepend_scheme=scheme)
    made.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in special])
    return made, []


def _bpe(proto, fairseq: bool):
    del fairseq  # no such model
    vocab = {piece.piece: i for i, piece in enumerate(proto.pieces)}
    ranked = sorted((piece for piece in proto.pieces if piece.type == NORMAL), key=lambda piece: -piece.score)
    splits = ((p.piece[:i], p.piece[i:]) for p in ranked for i in range(1, len(p.piece)))
    merges = [pair for pair in splits if pair[0] in vocab and pair[1] in vocab]
    unk = proto.pieces[proto.trainer_spec.unk_id].piece
    made = tokenizers.Tokenizer(models.BPE(vocab, merges, unk_token=unk, fuse_unk=True, byte_fallback=proto.trainer_spec.byte_fallback))
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    made.add_special_tokens([AddedToken(p.piece, normalized=False, special=True) for p in proto.pieces if p.type == CONTROL])
    made.add_tokens([AddedToken(p.piece, normalized=False) for p in proto.pieces if p.type == USER_DEFINED])
    prefix = [normalizers.Prepend("▁")] if proto.normalizer_spec.add_dummy_prefix else []
    return made, [*prefix, normalizers.Replace(" ", "▁")]
