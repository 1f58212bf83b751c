package org.snu.ids.ha.ma;

import java.util.ArrayList;

/** A candidate that is joined to heads, as numbers. Each array has one entry per morpheme. */
final class Tail {
    final MCandidate candidate;
    final int size;
    final int[] kind;
    final int[] slot;
    final int[] tag;
    final int[] length;
    final int[] hash;
    final int[] power;
    final float[] tagging;
    final float[] transition; // from the previous morpheme; unused for the first
    final boolean[] light;
    final boolean[] suffix;
    final int[] surface; // of the parts between spaces
    final boolean plain;

    Tail(MCandidate candidate) {
        this.candidate = candidate;
        CachedCandidate.fill(candidate);
        size = candidate.size();
        kind = new int[size];
        slot = new int[size];
        tag = new int[size];
        length = new int[size];
        hash = new int[size];
        power = new int[size];
        tagging = new float[size];
        transition = new float[size];
        light = new boolean[size];
        suffix = new boolean[size];
        ArrayList<String> parts = candidate.expList;
        surface = new int[parts.size()];
        for (int i = 0; i < surface.length; i++) {
            surface[i] = parts.get(i).length();
        }
        int spaces = 0;
        Score score = new Score();
        for (int i = 0; i < size; i++) {
            Morpheme morpheme = candidate.get(i);
            String string = morpheme.string;
            hash[i] = Hashes.morpheme(string, morpheme.infoEnc);
            power[i] = Hashes.morphemePower(string, morpheme.infoEnc);
            if (morpheme instanceof MorphemeSpace) {
                spaces++;
                score.joined = false;
                continue;
            }
            long number = morpheme.getTagNum();
            kind[i] = Score.kind(number);
            length[i] = string.length();
            slot[i] = Tables.slot(string);
            tag[i] = Tables.tag(number);
            tagging[i] = Tables.tagging(slot[i], tag[i]);
            light[i] = Score.isLight(string);
            suffix[i] = Score.isSuffix(number);
            if (i > 0 && !score.first) {
                transition[i] = score.transition(slot[i], tag[i], light[i]);
            }
            score.step(tag[i], suffix[i]);
        }
        plain = size > 0 && kind[0] != Score.SPACE && surface.length == spaces + 1;
    }
}
