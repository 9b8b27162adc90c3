//! A step time that is affine in its tokens and contexts, with coefficients from the scenario.
