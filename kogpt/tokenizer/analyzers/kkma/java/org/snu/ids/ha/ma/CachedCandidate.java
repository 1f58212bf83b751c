package org.snu.ids.ha.ma;

import java.nio.ByteBuffer;
import java.util.List;

/**
 * A candidate from the cache. It lists its morphemes and the parts of its surface when they are asked for, which is
 * mostly so only if it is the best one of its token.
 */
final class CachedCandidate extends MCandidate {
    private static final long serialVersionUID = 1;

    private final transient String surface;
    private final transient ByteBuffer record;
    private final transient int parts; // where the record lists their lengths, and then the morphemes
    private transient Morpheme[] morphemes; // of the record; null when listed

    /** Reads a candidate at the record's position. */
    CachedCandidate(String surface, Morpheme[] morphemes, ByteBuffer record) {
        this.surface = surface;
        this.record = record;
        this.morphemes = morphemes;
        int conditions = record.getShort();
        atlEnc = Analyses.CONDITIONS.part(conditions, 0);
        hclEnc = Analyses.CONDITIONS.part(conditions, 1);
        bclEnc = Analyses.CONDITIONS.part(conditions, 2);
        cclEnc = Analyses.CONDITIONS.part(conditions, 3);
        eclEnc = Analyses.CONDITIONS.part(conditions, 4);
        realDicLen = record.get();
        candDicLen = record.get();
        lnprOfSpacing = record.getFloat();
        lnprOfTagging = record.getFloat();
        hashCode = record.getInt();
        parts = record.position();
        int list = list();
        int size = record.get(list);
        firstMorp = morphemes[record.get(list + 1)];
        lastMorp = morphemes[record.get(list + size)];
        record.position(list + 1 + size);
    }

    private int list() {
        return parts + 1 + record.get(parts);
    }

    /** Lists what a candidate of Kkma lists. To be called before its fields are read. */
    static void fill(MCandidate candidate) {
        if (candidate instanceof CachedCandidate) {
            ((CachedCandidate) candidate).fill();
        }
    }

    private void fill() {
        if (morphemes == null) {
            return;
        }
        int from = 0;
        for (int at = parts + 1, end = list(); at < end; at++) {
            int length = record.get(at);
            expList.add(surface.substring(from, from += length));
        }
        for (int at = list() + 1, end = at + record.get(list()); at < end; at++) {
            super.add(morphemes[record.get(at)]);
        }
        morphemes = null;
    }

    @Override
    public int size() {
        return morphemes == null ? super.size() : record.get(list());
    }

    @Override
    public Morpheme get(int index) {
        fill();
        return super.get(index);
    }

    @Override
    public char getFirstSyllable() {
        return surface.charAt(0);
    }

    @Override
    public char getLastSyllable() {
        return surface.charAt(surface.length() - 1);
    }

    @Override
    List<MCandidate> split() {
        fill();
        return super.split();
    }
}
