"""Finetune backbones on dense tasks, run studies, and write reports."""
