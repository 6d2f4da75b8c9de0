"""Towers, poolings and the arrays they hand on, by the name a config uses."""

from models import bert, decoder, modernbert, naflex, read_out, resnet, text, vectors, vit

TOWERS = {
    "bert": bert.Bert,
    "decoder": decoder.Decoder,
    "modernbert": modernbert.ModernBert,
    "naflex": naflex.NaFlex,
    "resnet": resnet.ResNet,
    "text": text.Text,
    "vectors": vectors.Vectors,
    "vit": vit.ViT,
}

POOLINGS = read_out.POOLINGS
