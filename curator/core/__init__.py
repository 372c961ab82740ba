"""Modules used by all others: errors, reasons, progress, stopping, text, images, models."""
