"""Tokenizers by the name a config uses: `bpe` is trained on the run's captions, the others read `options.path`."""

from input_pipeline.tokenize.hugging_face import hf, load_folder
from input_pipeline.tokenize.tokenizer import FILE_NAME, Frame, Tokenizer, load
from input_pipeline.tokenize.train import train_bpe
from input_pipeline.tokenize.vocabulary_files import FAMILIES, byte_bpe, clip, saved, sentencepiece, wordpiece

__all__ = ["FAMILIES", "FILE_NAME", "TOKENIZERS", "Frame", "Tokenizer", "load", "load_folder", "train_bpe"]

TOKENIZERS = {
    "bpe": train_bpe,
    "byte_bpe": byte_bpe,
    "clip": clip,
    "hf": hf,
    "saved": saved,
    "sentencepiece": sentencepiece,
    "wordpiece": wordpiece,
}
