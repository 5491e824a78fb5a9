"""Which members, weights, strategy and biases: searched on validation images, scored on images not used for the search.

R. Caruana, A. Niculescu-Mizil, G. Crew, A. Ksikes: Ensemble Selection from Libraries of Models, ICML 2004.
"""
