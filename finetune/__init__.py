"""Dense-task finetuning, studies and reports."""
