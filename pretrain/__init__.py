"""Pretraining on a caption version (CLIP, SigLIP, MAE); comes with the verdict."""
