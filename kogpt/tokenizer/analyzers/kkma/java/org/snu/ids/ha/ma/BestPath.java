package org.snu.ids.ha.ma;

import java.util.Collections;
import java.util.List;
import org.snu.ids.ha.constants.POSTag;

/**
 * The search for the best candidates of a document, with Kkma's results.
 *
 * <p>Candidates of the token before that end in the same tag share one look-up of the transition, and each string is
 * looked up once. Floats are added in Kkma's order.
 */
final class BestPath {
    private BestPath() {}

    /** Replaces MExpression.setBestPrevMC: links each candidate to the best one before it. */
    static void setBestPrevMC(MExpression list, MExpression before) {
        if (before == null) {
            list.setBestPrevMC(null);
            return;
        }
        int heads = before.size();
        int[] tags = new int[heads];
        int[] lengths = new int[heads];
        int[] same = new int[heads]; // the first head with this tag, which also ends a sentence or not
        boolean[] ends = new boolean[heads];
        char[] syllables = new char[heads];
        for (int j = 0; j < heads; j++) {
            MCandidate head = before.get(j);
            tags[j] = Tables.tag(head.lastMorp.getTagNum());
            lengths[j] = head.diclenOfBestMC + head.getDicLenWithCand();
            ends[j] = head.lastMorp.isTagOf(POSTag.EF);
            syllables[j] = head.getLastSyllable();
            while (tags[same[j]] != tags[j] || ends[same[j]] != ends[j]) {
                same[j]++;
            }
        }
        float[] transitions = new float[heads];
        for (int i = 0, size = list.size(); i < size; i++) {
            link(list.get(i), before, tags, lengths, same, ends, syllables, transitions);
        }
    }

    private static void link(
            MCandidate tail,
            MExpression before,
            int[] tags,
            int[] lengths,
            int[] same,
            boolean[] ends,
            char[] syllables,
            float[] transitions) {
        Morpheme first = tail.firstMorp;
        int slot = Tables.slot(first.string);
        int tag = Tables.tag(first.getTagNum());
        boolean mark = first.isTagOf(POSTag.SF);
        char syllable = tail.getFirstSyllable();
        char left = 0;
        boolean joinedBefore = false;
        float spacing = 0;
        for (int j = 0; j < tags.length; j++) {
            MCandidate head = before.get(j);
            boolean joined = ends[j] && mark;
            if (j == 0 || syllables[j] != left || joined != joinedBefore) {
                left = syllables[j];
                joinedBefore = joined;
                spacing = Tables.spacing(left, syllable, !joined);
            }
            if (same[j] == j) {
                transitions[j] = Tables.transition(joined ? Tables.WITHIN : Tables.AFTER_SPACE, tags[j], slot, tag);
            }
            float newSpacing = head.spacingLnprOfBestMC + tail.lnprOfSpacing;
            newSpacing += spacing;
            float newTagging = head.taggingLnprOfBestMC + tail.lnprOfTagging;
            newTagging += transitions[same[j]];
            int length = lengths[j];
            if (tail.prevBestMC == null
                    || length > tail.diclenOfBestMC
                    || length == tail.diclenOfBestMC
                            && newSpacing + newTagging > tail.spacingLnprOfBestMC + tail.taggingLnprOfBestMC) {
                tail.prevBestMC = head;
                tail.diclenOfBestMC = length;
                tail.spacingLnprOfBestMC = newSpacing;
                tail.taggingLnprOfBestMC = newTagging;
            }
        }
    }

    /** Replaces MExpression.split: a candidate without a space stays, and its unused numbers are not computed again. */
    static List<MExpression> split(MExpression list) throws Exception {
        MCandidate best = list.get(0);
        int size = best.size();
        boolean whole = size > 0 && best.firstMorp == best.get(0) && best.lastMorp == best.get(size - 1);
        for (int i = 0; whole && i < size; i++) {
            whole = !(best.get(i) instanceof MorphemeSpace);
        }
        whole &= best.expList.size() == 1 && best.expList.get(0).equals(list.exp);
        return whole ? Collections.singletonList(list) : list.split();
    }
}
