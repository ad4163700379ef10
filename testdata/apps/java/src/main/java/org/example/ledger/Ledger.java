package org.example.ledger;

import java.math.BigDecimal;
import java.util.List;

final class Ledger {
    private final List<Entry> entries;

    Ledger(List<Entry> entries) {
        this.entries = List.copyOf(entries);
    }

    int size() {
        return entries.size();
    }

    BigDecimal balance() {
        return entries.stream().map(Entry::amount).reduce(BigDecimal.ZERO, BigDecimal::add);
    }
}
