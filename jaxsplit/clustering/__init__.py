"""Domains found in text without labels: documents -> vectors -> clusters, which route questions later.

settings.py says what is asked, features.py what a feature map is (tfidf.py is ours), kmeans.py and balance.py compute on the
accelerator, fitting.py calls them, levels.py merges fine clusters into coarse ones, clusters.py fits, assigns, saves and loads,
importance.py weighs clusters for a scarce domain.
"""
