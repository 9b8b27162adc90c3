//! A step time from GPU and model figures: an operator-level roofline.
