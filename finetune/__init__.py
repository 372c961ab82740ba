"""Dense-task finetuning, studies and reports; comes with the verdict."""
