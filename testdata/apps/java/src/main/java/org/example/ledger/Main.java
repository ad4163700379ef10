package org.example.ledger;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.List;

public final class Main {
    private Main() {
    }

    public static void main(String[] arguments) throws IOException {
        List<Entry> entries;
        try (var lines = new BufferedReader(new InputStreamReader(
                Main.class.getResourceAsStream("/entries.csv"), StandardCharsets.UTF_8))) {
            entries = lines.lines().skip(1).map(Entry::parse).toList();
        }
        var ledger = new Ledger(entries);
        String version = Main.class.getPackage().getImplementationVersion();
        System.out.printf("ledger %s in %s: %d entries, balance %s%n",
                version, System.getProperty("ledger.zone", "nowhere"), ledger.size(), ledger.balance());
    }
}
