"""What everything else uses: errors, reasons, progress, stopping, text, images, models."""
