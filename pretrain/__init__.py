"""Pretraining on a caption version: CLIP, SigLIP, MAE, SimMIM."""
