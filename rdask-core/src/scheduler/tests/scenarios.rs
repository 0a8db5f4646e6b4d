//! Given these facts, exactly these decisions.
