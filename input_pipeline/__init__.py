"""Sources by the name a config uses, and sets that only evaluators read."""

from input_pipeline import labelled_text, local_bitext, local_images, local_matching, local_text, needles
from input_pipeline.sources import (
    array_record,
    captions,
    digits,
    docstrings,
    glyph_mosaics,
    glyph_scenes,
    glyph_swaps,
    glyphs,
    image_folder,
    library,
    pairs,
    tfds,
    webdataset,
)

SOURCES = {
    "array_record": array_record.ArrayRecord,
    "captions": captions.Captions,
    "digits": digits.Digits,
    "docstrings": docstrings.Docstrings,
    "glyph_mosaics": glyph_mosaics.GlyphMosaics,
    "glyph_scenes": glyph_scenes.GlyphScenes,
    "glyph_swaps": glyph_swaps.GlyphSwaps,
    "glyphs": glyphs.Glyphs,
    "image_folder": image_folder.ImageFolder,
    "library": library.Library,
    "pairs": pairs.Pairs,
    "tfds": tfds.Tfds,
    "webdataset": webdataset.WebDataset,
}

EVAL_SETS = {
    "banking77": local_text.Banking77,
    "cifar10": local_images.Cifar10,
    "coco_captions": local_matching.CocoCaptions,
    "cosqa": local_text.CoSqa,
    "cranfield": local_text.Cranfield,
    "flickr8k": local_images.Flickr8k,
    "mnist": local_images.Mnist,
    "mr": labelled_text.Mr,
    "multi30k": local_bitext.Multi30k,
    "needles": needles.Needles,
    "nlvr": local_matching.Nlvr,
    "omniglot": local_images.Omniglot,
    "openmoji": local_images.OpenMoji,
    "scifact": local_text.SciFact,
    "sst": labelled_text.Sst,
    "stsb": local_text.Stsb,
    "subj": labelled_text.Subj,
    "sugarcrepe": local_matching.SugarCrepe,
    "tatoeba": local_text.Tatoeba,
    "trec": labelled_text.Trec,
}
