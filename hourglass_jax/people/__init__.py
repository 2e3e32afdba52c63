"""People in pictures and films: boxes, detectors, who is who from frame to frame, and smooth joints."""
