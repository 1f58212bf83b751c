package org.snu.ids.ha.ma;

import java.lang.reflect.Field;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import org.snu.ids.ha.constants.POSTag;
import org.snu.ids.ha.dic.PDDictionary;
import org.snu.ids.ha.dic.SpacingPDDictionary;
import org.snu.ids.ha.dic.UNPDDictionary;

/**
 * Kkma's probabilities in open-addressed arrays of numbers instead of hash tables keyed by strings.
 *
 * <p>They are read from a file, or collected from Kkma's own. A look-up builds no
 * key, and about 110 MB of heap are saved. The key of a morpheme's probability is (kind, previous tag, slot of the
 * string, tag), packed in one long. The results are bit-identical to those of PDDictionary, SpacingPDDictionary, and
 * UNPDDictionary.
 */
final class Tables {
    private static final int TAGGING = 1;
    private static final int MORPHEME = 2;
    static final int WITHIN = 3;
    static final int AFTER_SPACE = 4;
    private static final float LOWEST = -18f;
    private static final float RARE = -14f;
    private static final float UNKNOWN_SYLLABLE = -30f;
    private static final float UNKNOWN_TAG = -9f;
    private static final long[] GROUPS = {POSTag.VX, POSTag.MD, POSTag.EP, POSTag.EF, POSTag.EC};
    private static final float EVEN = (float) Math.log(0.5);

    private static final long[] TAGS = new long[256];
    private static final String[] STRINGS = new String[1 << 18];
    private static final int[] HASHES = new int[STRINGS.length];
    private static final long[] KEYS = new long[1 << 20];
    private static final float[] VALUES = new float[KEYS.length];
    private static final int[] PAIRS = new int[1 << 19];
    private static final float[] SPACED = new float[PAIRS.length];
    private static final float[] JOINED = new float[PAIRS.length];
    private static final float[] SYLLABLES = new float[1 << 16];
    private static final float[] TAG_VALUES = new float[TAGS.length];
    private static final int NULL_SLOT = stringPlace("null".hashCode()); // "null" stands for any string, and is first

    private Tables() {}

    /** Reads or writes all of it. */
    static void pass(ArrayFile file) {
        file.longs(TAGS);
        file.strings(STRINGS);
        file.longs(KEYS);
        file.floats(VALUES);
        file.ints(PAIRS);
        file.floats(SPACED);
        file.floats(JOINED);
        file.floats(SYLLABLES);
        file.floats(TAG_VALUES);
        setHashes();
    }

    /** Fills the tables from Kkma's own, and returns those, which Kkma's dictionary needs while it loads. */
    static List<Map<?, ?>> collect() throws ReflectiveOperationException {
        Map<Long, Float> tags = table(PDDictionary.class, "LNPR_POS");
        Map<String, Float> tagging = table(PDDictionary.class, "LNPR_POS_G_EXP");
        Map<String, Float> morphemes = table(PDDictionary.class, "LNPR_MORP");
        Map<String, Float> within = table(PDDictionary.class, "LNPR_POS_G_MORP_INTRA");
        Map<String, Float> afterSpace = table(PDDictionary.class, "LNPR_POS_G_MORP_INTER");
        if (addString("null") != NULL_SLOT) {
            throw new IllegalStateException("Kkma's tables are already collected");
        }
        for (Map.Entry<String, Float> entry : tagging.entrySet()) {
            int bar = entry.getKey().indexOf('|');
            long tag = Long.parseLong(entry.getKey().substring(0, bar));
            add(TAGGING, 0, entry.getKey().substring(bar + 1), tag, entry.getValue());
        }
        for (Map.Entry<String, Float> entry : morphemes.entrySet()) {
            int colon = entry.getKey().lastIndexOf(':');
            long tag = Long.parseLong(entry.getKey().substring(colon + 1));
            add(MORPHEME, 0, entry.getKey().substring(0, colon), tag, entry.getValue());
        }
        addTransitions(WITHIN, within);
        addTransitions(AFTER_SPACE, afterSpace);
        for (long tag : tags.keySet()) {
            addTag(tag);
        }
        for (int i = 0; i < TAGS.length; i++) {
            TAG_VALUES[i] = PDDictionary.getLnprPos(TAGS[i] - 1);
        }
        Map<String, float[]> spacing = table(SpacingPDDictionary.class, "PROB_HASH");
        for (Map.Entry<String, float[]> entry : spacing.entrySet()) {
            if (entry.getKey().length() == 2) {
                addPair(entry.getKey().charAt(0) << 16 | entry.getKey().charAt(1), entry.getValue());
            }
        }
        Arrays.fill(SYLLABLES, UNKNOWN_SYLLABLE);
        Map<Character, Float> syllables = table(UNPDDictionary.class, "PROB_AT_NOUN_HASH");
        for (Map.Entry<Character, Float> entry : syllables.entrySet()) {
            SYLLABLES[entry.getKey()] = entry.getValue();
        }
        setHashes();
        return Arrays.<Map<?, ?>>asList(tagging, morphemes, within, afterSpace, spacing);
    }

    private static void setHashes() {
        for (int i = 0; i < STRINGS.length; i++) {
            HASHES[i] = STRINGS[i] == null ? 0 : STRINGS[i].hashCode();
        }
    }

    @SuppressWarnings("unchecked")
    private static <K, V> Map<K, V> table(Class<?> owner, String name) throws ReflectiveOperationException {
        Field field = owner.getDeclaredField(name);
        field.setAccessible(true);
        return (Map<K, V>) field.get(null);
    }

    private static void addTransitions(int kind, Map<String, Float> table) {
        for (Map.Entry<String, Float> entry : table.entrySet()) {
            String key = entry.getKey();
            int bar = key.indexOf('|');
            int colon = key.lastIndexOf(':');
            int before = addTag(Long.parseLong(key.substring(0, bar)));
            long tag = Long.parseLong(key.substring(colon + 1));
            add(kind, before, key.substring(bar + 1, colon), tag, entry.getValue());
        }
    }

    private static void add(int kind, int before, String string, long tag, float value) {
        long key = key(kind, before, addString(string), addTag(tag));
        int place = place(key);
        while (KEYS[place] != 0) {
            place = place + 1 & KEYS.length - 1;
        }
        KEYS[place] = key;
        VALUES[place] = value;
    }

    private static void addPair(int pair, float[] values) {
        int place = pairPlace(pair);
        while (PAIRS[place] != 0) {
            place = place + 1 & PAIRS.length - 1;
        }
        PAIRS[place] = pair;
        SPACED[place] = values[0];
        JOINED[place] = values[1];
    }

    private static int addString(String string) {
        int place = stringPlace(string.hashCode());
        while (STRINGS[place] != null && !STRINGS[place].equals(string)) {
            place = place + 1 & STRINGS.length - 1;
        }
        STRINGS[place] = string;
        return place;
    }

    private static int addTag(long tag) {
        int place = tagPlace(tag);
        while (TAGS[place] != 0 && TAGS[place] != tag + 1) {
            place = place + 1 & TAGS.length - 1;
        }
        TAGS[place] = tag + 1;
        return place;
    }

    private static long key(int kind, int before, int slot, int tag) {
        return (long) kind << 40 | (long) slot << 16 | before << 8 | tag;
    }

    private static int place(long key) {
        return (int) (key * 0x9E3779B97F4A7C15L >>> 44);
    }

    private static int pairPlace(int pair) {
        return pair * 0x9E3779B1 >>> 13;
    }

    private static int stringPlace(int hash) {
        return hash * 0x9E3779B1 >>> 14;
    }

    private static int tagPlace(long tag) {
        return (int) (tag * 0x9E3779B97F4A7C15L >>> 56);
    }

    /** The slot of a string in the tables, or -1 if it is in none. */
    static int slot(String string) {
        int hash = string.hashCode();
        int place = stringPlace(hash);
        while (STRINGS[place] != null) {
            if (HASHES[place] == hash && STRINGS[place].equals(string)) {
                return place;
            }
            place = place + 1 & STRINGS.length - 1;
        }
        return -1;
    }

    /** PDDictionary.getPrTag, which would load all of PDDictionary. */
    private static long tagClass(long tag) {
        if ((tag & (POSTag.NNA | POSTag.UN)) > 0) {
            return POSTag.NNA;
        }
        if ((tag & (POSTag.NNM | POSTag.NNB)) > 0) {
            return POSTag.NNB;
        }
        for (long group : GROUPS) {
            if ((tag & group) > 0) {
                return group;
            }
        }
        return tag;
    }

    /** The number of a tag's class, or -1 if it is in no table. */
    static int tag(long tag) {
        long sought = tagClass(tag);
        int place = tagPlace(sought);
        while (TAGS[place] != 0) {
            if (TAGS[place] == sought + 1) {
                return place;
            }
            place = place + 1 & TAGS.length - 1;
        }
        return -1;
    }

    private static float find(int kind, int before, int slot, int tag) {
        if ((before | slot | tag) < 0) {
            return Float.NaN;
        }
        long key = key(kind, before, slot, tag);
        int place = place(key);
        while (KEYS[place] != 0) {
            if (KEYS[place] == key) {
                return VALUES[place];
            }
            place = place + 1 & KEYS.length - 1;
        }
        return Float.NaN;
    }

    /** PDDictionary.getLnprPosGExp. */
    static float tagging(int slot, int tag) {
        float value = find(TAGGING, 0, slot, tag);
        if (value == value) {
            return value;
        }
        return tag < 0 ? UNKNOWN_TAG : TAG_VALUES[tag];
    }

    /** PDDictionary.getLnprPosGMorpIntra (WITHIN) and getLnprPosGMorpInter (AFTER_SPACE). */
    static float transition(int kind, int before, int slot, int tag) {
        float value = find(kind, before, slot, tag);
        if (value != value) {
            float morpheme = find(MORPHEME, 0, slot, tag);
            if ((morpheme == morpheme ? morpheme : LOWEST) < RARE) {
                value = find(kind, before, NULL_SLOT, tag);
            }
        }
        return value == value ? value : LOWEST;
    }

    static float tagging(String string, long tag) {
        return tagging(slot(string), tag(tag));
    }

    static float within(long before, String string, long tag) {
        return transition(WITHIN, tag(before), slot(string), tag(tag));
    }

    static float afterSpace(long before, String string, long tag) {
        return transition(AFTER_SPACE, tag(before), slot(string), tag(tag));
    }

    /** SpacingPDDictionary.getProb of two syllables. */
    static float spacing(char left, char right, boolean spaced) {
        int pair = left << 16 | right;
        int place = pairPlace(pair);
        while (PAIRS[place] != 0) {
            if (PAIRS[place] == pair) {
                return spaced ? SPACED[place] : JOINED[place];
            }
            place = place + 1 & PAIRS.length - 1;
        }
        return EVEN;
    }

    /** SpacingPDDictionary.getProb of a string: the syllable before a space is paired with the space. */
    static float spacing(String string) {
        String text = string.trim();
        if (text.isEmpty()) {
            return Float.MIN_VALUE;
        }
        if (text.indexOf(' ') >= 0 || text.indexOf('\t') >= 0) {
            text = text.replaceAll("[ \t]+", " ");
        }
        float sum = 0;
        for (int i = 0; i < text.length() - 1; i++) {
            char left = text.charAt(i);
            char right = text.charAt(i + 1);
            boolean spaced = right == ' ';
            sum += spacing(left, right, spaced);
            if (spaced) {
                i++;
            }
        }
        return sum;
    }

    /** UNPDDictionary.getProb: a string as a noun that is in no dictionary. */
    static float noun(String string) {
        if (string.trim().isEmpty()) {
            return Float.MIN_VALUE;
        }
        float sum = 0;
        for (int i = 0; i < string.length(); i++) {
            sum += SYLLABLES[string.charAt(i)];
        }
        return sum;
    }
}
