"""What is promised, tried often: damaged and hostile files, kills, full disks, random models, many cycles.

``make trust`` runs it all (``python -m trust``); ``make test`` a short run of the same code (``test_trust.py``).
"""
