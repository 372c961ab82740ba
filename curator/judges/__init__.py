"""Scorers that ask: vision-language models as judges of a text, and BLIP's matching head.

They are rows of `curator.scorers.SCORERS` (`vqa`, `claims`, `itm`). They stand here and not beside
the other scorers because they use the captioners' models and servers.
"""
