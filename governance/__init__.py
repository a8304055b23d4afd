"""What must hold, and the proof: policies, evidence, seals and reports for any image generator."""
