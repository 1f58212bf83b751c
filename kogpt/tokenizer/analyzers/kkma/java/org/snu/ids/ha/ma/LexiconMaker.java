package org.snu.ids.ha.ma;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.snu.ids.ha.constants.POSTag;

/** Makes the arrays of Lexicon from the table of Kkma's dictionary. The same table gives the same arrays. */
final class LexiconMaker {
    private final Map<List<Long>, Integer> shapes = new HashMap<List<Long>, Integer>();
    private final Map<Long, Integer> tags = new HashMap<Long, Integer>();
    private final Map<String, Integer> strings = new HashMap<String, Integer>();
    private final List<String> stringList = new ArrayList<String>();
    private char[] entries = new char[1 << 23];
    private int end;

    private LexiconMaker() {}

    static void make(Map<String, MExpression> table) {
        LexiconMaker maker = new LexiconMaker();
        for (Map.Entry<String, MExpression> entry : table.entrySet()) {
            maker.add(entry.getKey(), entry.getValue());
        }
        Lexicon.entries = Arrays.copyOf(maker.entries, maker.end);
        Lexicon.shapes = new long[Lexicon.SHAPE * maker.shapes.size()];
        for (Map.Entry<List<Long>, Integer> shape : maker.shapes.entrySet()) {
            for (int i = 0; i < Lexicon.SHAPE; i++) {
                Lexicon.shapes[Lexicon.SHAPE * shape.getValue() + i] = shape.getKey().get(i);
            }
        }
        Lexicon.tags = new long[maker.tags.size()];
        for (Map.Entry<Long, Integer> tag : maker.tags.entrySet()) {
            Lexicon.tags[tag.getValue()] = tag.getKey();
        }
        Lexicon.strings = maker.stringList.toArray(new String[0]);
    }

    private void add(String word, MExpression expression) {
        int hash = word.hashCode();
        int bit = Lexicon.bit(hash);
        Lexicon.FILTER[bit >>> 6] |= 1L << bit;
        int place = Lexicon.place(hash);
        while (Lexicon.PLACES[place] != 0) {
            place = place + 1 & Lexicon.PLACES.length - 1;
        }
        Lexicon.PLACES[place] = end + 1;
        boolean noun = false;
        for (MCandidate candidate : expression) {
            noun |= candidate.size() == 1 && candidate.isFirstTagOf(POSTag.NNA);
        }
        put(word.length());
        for (int i = 0; i < word.length(); i++) {
            put(word.charAt(i));
        }
        put(2 * expression.size() + (noun ? 1 : 0));
        float spacing = expression.get(0).lnprOfSpacing;
        putPair(Float.floatToRawIntBits(spacing));
        for (MCandidate candidate : expression) {
            require(candidate.lnprOfSpacing == spacing && candidate.prevBestMC == null
                    && candidate.spacingLnprOfBestMC == 0, word);
            add(word, candidate);
        }
    }

    private void add(String word, MCandidate candidate) {
        long lengths = candidate.realDicLen & 0xFF | (candidate.candDicLen & 0xFF) << 8
                | (candidate.numOfApndblMC & 0xFF) << 16;
        put(number(shapes, Arrays.asList(candidate.atlEnc, candidate.hclEnc, candidate.cclEnc, candidate.bclEnc,
                candidate.eclEnc, lengths)));
        putPair(candidate.hashCode);
        putPair(Float.floatToRawIntBits(candidate.lnprOfTagging));
        List<String> surfaces = candidate.expList;
        boolean plain = surfaces.size() == 1 && surfaces.get(0).equals(word);
        put(plain ? 0 : surfaces.size());
        if (!plain) {
            for (String surface : surfaces) {
                putString(word, surface);
            }
        }
        put(candidate.size());
        for (Morpheme morpheme : candidate) {
            require(morpheme.index == 0 && morpheme.charSet == CharSetType.HANGUL, word);
            put(number(tags, morpheme.infoEnc));
            putString(word, morpheme.string);
        }
    }

    private static <K> int number(Map<K, Integer> numbers, K key) {
        Integer number = numbers.get(key);
        if (number == null) {
            number = numbers.size();
            numbers.put(key, number);
        }
        return number;
    }

    private void putString(String word, String string) {
        if (string.equals(word)) {
            put(0);
            return;
        }
        int number = number(strings, string);
        if (number == stringList.size()) {
            stringList.add(string);
        }
        put(1);
        putPair(number);
    }

    private void putPair(int value) {
        put(value >>> 16);
        put(value & 0xFFFF);
    }

    private void put(int value) {
        require(value >>> 16 == 0, "a number of an entry");
        if (end == entries.length) {
            entries = Arrays.copyOf(entries, 2 * end);
        }
        entries[end++] = (char) value;
    }

    private static void require(boolean holds, String what) {
        if (!holds) {
            throw new IllegalStateException("Kkma's dictionary has changed: " + what);
        }
    }
}
