package org.example.ledger;

import java.math.BigDecimal;

record Entry(String account, BigDecimal amount) {
    static Entry parse(String line) {
        String[] fields = line.split(",", 2);
        return new Entry(fields[0], new BigDecimal(fields[1].strip()));
    }
}
